"""The workspace's container registry: signed in to, asked for a digest, and pushed to through the Docker engine.

registry = of(workspace)
registry.digest("phikit-runtime", "cpu-1a2b3c")       # None: not there
registry.push(engine, "phikit-runtime:cpu", "phikit-runtime", "cpu-1a2b3c")

One token of Entra's is exchanged for one of the registry's (github.com/Azure/acr: docs/AAD-OAuth.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devtools.azure.progress import say
from devtools.azure.refusals import one_line, told
from devtools.azure.sign_in import SCOPE
from devtools.azure.workspace import Workspace
from devtools.errors import KitError

if TYPE_CHECKING:
    from docker import DockerClient

API_VERSION = "2023-07-01"
#: The user of everybody who comes with a token.
TOKEN_USER = "00000000-0000-0000-0000-000000000000"
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
TIMEOUT = 60
FORBIDDEN = 403


@dataclass(frozen=True)
class Registry:
    """A registry, and what it knows us by."""

    server: str
    """Its address, such as `name.azurecr.io`."""
    refresh_token: str

    def digest(self, repository: str, tag: str) -> str | None:
        """The digest of an image; None when it is not there."""
        import requests

        with told(f"registry {self.server}"):
            form = {
                "grant_type": "refresh_token",
                "service": self.server,
                "scope": f"repository:{repository}:pull",
                "refresh_token": self.refresh_token,
            }
            answer = requests.post(f"https://{self.server}/oauth2/token", data=form, timeout=TIMEOUT)
            answer.raise_for_status()
            headers = {"Authorization": f"Bearer {answer.json()['access_token']}", "Accept": ", ".join(MANIFESTS)}
            address = f"https://{self.server}/v2/{repository}/manifests/{tag}"
            found = requests.head(address, headers=headers, timeout=TIMEOUT)
            if found.status_code == requests.codes.not_found:
                return None
            found.raise_for_status()
            return found.headers["Docker-Content-Digest"]

    def push(self, engine: DockerClient, image: str, repository: str, tag: str) -> str:
        """Push an image of the engine's and return its digest: minutes the first time, what changed later.

        Raises KitError when the registry refuses it, or the engine.
        """
        name = f"{self.server}/{repository}"
        with _pushing(image):
            engine.images.get(image).tag(name, tag)
            try:
                self._send(engine, image, name, tag)
            finally:
                # the name was for the push alone; and what went wrong before says more than that it cannot be removed
                with contextlib.suppress(*_engine_errors()):
                    engine.images.remove(f"{name}:{tag}", noprune=True)
        digest = self.digest(repository, tag)
        if digest is None:
            raise KitError(f"image {image}: {self.server} took it, and does not have it; give the same command again")
        return digest

    def _send(self, engine: DockerClient, image: str, name: str, tag: str) -> None:
        login = {"username": TOKEN_USER, "password": self.refresh_token}
        with _Progress(f"pushing {image} to {self.server}") as progress:
            for event in engine.api.push(name, tag, auth_config=login, stream=True, decode=True):
                if "error" in event:
                    raise KitError(f"image {image}: {self.server} refuses it ({one_line(event['error'])}); {PUSH_FIX}")
                progress.note(event)


@contextlib.contextmanager
def _pushing(image: str) -> Iterator[None]:
    """Say what the engine raises inside as one line with its fix."""
    from docker.errors import APIError, ImageNotFound

    try:
        yield
    except ImageNotFound as error:
        fix = "phikit image build --gpu" if image.endswith(":gpu") else "phikit image build"
        raise KitError(f"image {image}: the engine no longer has it; {fix}, and give the same command again") from error
    except APIError as error:
        said = one_line(error.explanation or error)
        raise KitError(f"image {image}: cannot be pushed ({said}); {PUSH_FIX}") from error
    except _engine_errors() as error:
        raise KitError(
            f"image {image}: the Docker engine stopped answering ({one_line(error)}); "
            "see that it runs (phikit doctor), and give the same command again"
        ) from error


def _engine_errors() -> tuple[type[Exception], ...]:
    """What a call of the engine raises: its client's own errors, and those of the two libraries below it."""
    from docker.errors import DockerException, StreamParseError
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    # (the events of a push are read past requests, so that urllib3's own errors come through)
    return DockerException, StreamParseError, RequestException, HTTPError


PUSH_FIX = "you need the role AcrPush there; or PHIKIT_AZURE_IMAGE=build has Azure build it"


def of(workspace: Workspace) -> Registry:
    """Sign in to the workspace's registry; raises KitError when it has none, or lets nobody in."""
    import requests

    registry = workspace.linked("containerRegistry")
    if not registry:
        raise KitError(
            f"workspace {workspace.name}: has no container registry yet; PHIKIT_AZURE_IMAGE=build makes Azure add one"
        )
    with told(f"registry {registry.rpartition('/')[2]}"):
        server = _server(workspace, registry)
        form = {
            "grant_type": "access_token",
            "service": server,
            "tenant": workspace.identity.tenant,
            "access_token": workspace.credential.get_token(SCOPE).token,
        }
        answer = requests.post(f"https://{server}/oauth2/exchange", data=form, timeout=TIMEOUT)
        if answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            raise KitError(f"registry {server}: does not let you in ({answer.status_code}); {PUSH_FIX}")
        answer.raise_for_status()
    return Registry(server, answer.json()["refresh_token"])


def _server(workspace: Workspace, registry: str) -> str:
    """A registry's address: as it says itself, or, to who may push to it and not look at it, as its name says."""
    from azure.core.exceptions import HttpResponseError

    try:
        return workspace.arm("GET", registry, API_VERSION)["properties"]["loginServer"]
    except HttpResponseError as error:
        if error.status_code != FORBIDDEN:
            raise
    return f"{registry.rpartition('/')[2].lower()}.azurecr.io"


class _Progress:
    """Bytes of all layers together; without a terminal, a line at the beginning."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._layers: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bar.add_task(self._title, total=None)
        self._bar.start()
        if not console.is_terminal:
            say(f"{self._title} (minutes, the first time)")
        return self

    def note(self, event: dict) -> None:
        """Take in what the engine says of one layer."""
        detail = event.get("progressDetail") or {}
        if event.get("id") and detail.get("total"):
            self._layers[event["id"]] = (min(detail["current"], detail["total"]), detail["total"])
            done, total = (sum(layer[index] for layer in self._layers.values()) for index in (0, 1))
            self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
