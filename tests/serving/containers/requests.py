"""What is asked of a server in a container."""

import http.client
import json
from contextlib import closing

from tests.serving.models import QUESTION

IMAGE = "phikit-runtime:cpu"
KEY = "long-and-random"
GREEDY = json.dumps({"input_data": [QUESTION], "params": {"temperature": 0}}).encode()


def call(port: int, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of one request; status 0 where nobody answers."""
    sent = {"Content-Type": "application/json"} if body is not None else {}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        try:
            connection.request("GET" if body is None else "POST", path, body, sent | headers)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
