"""What Azure's answers, a network that is away and a Docker engine that fails are told as: one line with its fix.

python -m pytest tests/azure_backend/test_refusal_lines.py
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from azure.core.exceptions import AzureError
from azure.storage.blob import ContainerClient

import docker
from devtools.azure.refusals import explained, one_line, told
from devtools.azure.registry import PUSH_FIX, Registry
from devtools.errors import KitError

SIGNATURE = "c2VjcmV0c2VjcmV0c2VjcmV0"
SIGNED = f"sv=2021-12-02&sr=c&sp=rl&sig={SIGNATURE}%3D"
#: Nobody listens there.
NOWHERE = "127.0.0.1:1"
AZUREML = "https://eastus.api.azureml.ms/history/v1.0/runs/one/details"
REGISTRY = "https://kit.azurecr.io/v2/phikit-runtime/manifests/cpu-1"
AGAIN = "give the same command again; it goes on"


def answered(status: int, reason: str = "Reason", url: str = AZUREML) -> requests.HTTPError:
    """What raise_for_status raises."""
    answer = requests.Response()
    answer.status_code, answer.reason, answer.url = status, reason, f"{url}?{SIGNED}"
    with pytest.raises(requests.HTTPError) as raised:
        answer.raise_for_status()
    assert SIGNATURE in str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            f"403 Client Error: Forbidden for url: https://a.b/c?{SIGNED}",
            "403 Client Error: Forbidden for url: https://a.b/c",
        ),
        (
            f"Max retries exceeded with url: /c/b?{SIGNED} (Caused by X)",
            "Max retries exceeded with url: /c/b (Caused by X)",
        ),
        (f"'https://a.b/c?{SIGNED}', and (https://a.b/d?{SIGNED}).", "'https://a.b/c', and (https://a.b/d)"),
        (f'{{"url": "https://a.b/c?comp=list\'&{SIGNED}"}}', '{"url": "https://a.b/c"}'),
        (f"/c?x?{SIGNED}\n\x1b[31mred\x1b[0m", "/c?x red"),
        ("is it there? a=b says so", "is it there? a=b says so"),
    ],
)
def test_no_query_of_an_address_is_printed(text, line):
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (answered(401), "job x: does not let you in (401 Reason); sign in again: az login"),
        (
            answered(401, url=REGISTRY),
            "job x: does not let you in (401 Reason); sign in again: az login; "
            "where that does not help, you need the role AcrPull on it, AcrPush to push",
        ),
        (
            answered(403),
            "job x: you may not do that (403 Reason); "
            "have somebody give you the role AzureML Data Scientist on the workspace",
        ),
        (
            answered(403, url=REGISTRY),
            "job x: you may not do that (403 Reason); have somebody give you the role AcrPull on it, AcrPush to push",
        ),
        (answered(429), f"job x: Azure cannot do that now (429 Reason); {AGAIN}"),
        (answered(503, ""), f"job x: Azure cannot do that now (503); {AGAIN}"),
        (answered(404), "job x: Azure answers 404 Reason; phikit azure check says what is missing"),
    ],
)
def test_an_answer_is_told_by_its_status(error, line):
    with pytest.raises(KitError) as refused, told("job x"):
        raise error
    assert str(refused.value) == line
    assert refused.value.code == 1


def test_what_is_no_answer_is_told_as_what_it_is():
    page = requests.Response()
    page._content = b"<html>"
    with pytest.raises(KitError) as refused, told("job x"):
        page.json()
    assert str(refused.value).startswith("job x: Expecting value")
    assert "cannot be reached" not in str(refused.value)


def _with_requests() -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.get(f"http://{NOWHERE}/c/b?{SIGNED}", timeout=5)


def _with_the_sdk() -> None:
    with ContainerClient.from_container_url(f"http://{NOWHERE}/account/c?{SIGNED}", retry_total=0) as container:
        container.get_container_properties()


@pytest.mark.parametrize("call", [_with_requests, _with_the_sdk])
def test_a_network_that_is_away_is_told_without_signatures(call, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises((requests.ConnectionError, AzureError)) as raised:
        call()
    line = str(explained(raised.value, "job x"))
    assert line.startswith("job x: Azure cannot be reached (")
    assert line.endswith(AGAIN)
    assert "sig" not in line
    assert "sv=" not in line


@contextlib.contextmanager
def engine(**broken: str) -> Iterator[docker.DockerClient]:
    """The real client of an engine that has every image and takes every push, but for what is `broken`, and how."""

    class Engine(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            does = next((word for word in ("tag", "push") if f"/{word}" in self.path), self.command.lower())
            how = broken.get(does)
            if how == "hangs up":
                self.close_connection = True
            elif how == "stops":
                # a piece of what it says, and no end
                self._say(200, b"", chunks=[b'{"status": "Preparing", "id": "1"}'])
                self.close_connection = True
            elif how == "garbles":
                self._say(200, b"", chunks=[b"} no JSON {", b""])
            elif how:
                self._say(404 if "No such" in how else 500, json.dumps({"message": how}).encode())
            elif does == "push":
                self._say(200, b"", chunks=[b'{"error": "denied"}', b""])
            else:
                self._say({"tag": 201}.get(does, 200), b"[]" if does == "delete" else b'{"Id": "sha256:1"}')

        do_GET = do_POST = do_DELETE = answer

        def _say(self, status: int, body: bytes, chunks: list[bytes] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if chunks is None:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunks or []:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{server.server_port}", version="1.43", timeout=10)
    try:
        yield client
    finally:
        client.close()
        server.shutdown()
        server.server_close()


STOPPED = "image phikit-runtime:cpu: the Docker engine stopped answering ("
REFUSED = f"image phikit-runtime:cpu: kit.azurecr.io refuses it (denied); {PUSH_FIX}"


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ({}, REFUSED),
        # the name that is not removed hides nothing
        ({"delete": "device is busy"}, REFUSED),
        ({"delete": "hangs up"}, REFUSED),
        ({"delete": "No such image: kit.azurecr.io/x:1"}, REFUSED),
        (
            {"get": "No such image: phikit-runtime:cpu"},
            "image phikit-runtime:cpu: the engine no longer has it; phikit image",
        ),
        ({"tag": "no space left"}, "image phikit-runtime:cpu: cannot be pushed (no space left); "),
        ({"push": "bad login"}, "image phikit-runtime:cpu: cannot be pushed (bad login); "),
        ({"get": "hangs up"}, STOPPED),
        ({"push": "hangs up"}, STOPPED),
        ({"push": "stops"}, STOPPED),
        ({"push": "stops", "delete": "hangs up"}, STOPPED),
        ({"push": "garbles"}, STOPPED),
    ],
    ids=str,
)
def test_a_push_that_fails_is_one_line(broken, line, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with engine(**broken) as client, pytest.raises(KitError) as refused:
        Registry("kit.azurecr.io", "token").push(client, "phikit-runtime:cpu", "x", "1")
    assert str(refused.value).startswith(line)
    assert len(str(refused.value).splitlines()) == 1
