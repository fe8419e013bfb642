"""Calls beside the SDK: Azure Resource Manager by hand, with sign-in, proxy and certificate as any client has them."""

import requests
from azure.identity import EnvironmentCredential

from devtools.rehearsal import MANAGEMENT_HOST

BASE = f"https://{MANAGEMENT_HOST}"


class Arm:
    """A signed-in caller: `arm.get("/subscriptions/...")` gives the whole answer."""

    def __init__(self) -> None:
        self._session = requests.Session()
        token = EnvironmentCredential().get_token(f"{BASE}/.default").token
        self._session.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, version: str = "2024-10-01", **options) -> requests.Response:
        url = path if path.startswith("https://") else BASE + path
        params = {"api-version": version} | options.pop("params", {})
        return self._session.request(method, url, params=params, timeout=60, **options)

    def get(self, path: str, **options) -> requests.Response:
        return self.call("GET", path, **options)

    def put(self, path: str, body: dict, **options) -> requests.Response:
        return self.call("PUT", path, json=body, **options)
