"""A real MLflow server, seen through Azure ML's eyes: behind a proxy that has no logged models."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket

from tests.training.program import wait_for


def free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@contextmanager
def program(arguments: list[str], live: str, log: Path) -> Iterator[None]:
    """A server that runs while the block does, from when `live` answers."""
    # what MLflow starts in its turn, uvicorn, must be the environment's too
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        wait_for(lambda: answers(live), process)
        yield
    finally:
        # its workers are processes of their own
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def tracking_server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The proxy's address, and the list of the paths that were called through it."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    paths: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            paths.append(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if "logged-models" in self.path:
                self.answer(404, [], b"")
                return
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as server:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                server.request(self.command, self.path, body, headers)
                response = server.getresponse()
                self.answer(response.status, response.getheaders(), response.read())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    with (
        program(server, f"http://127.0.0.1:{port}/health", folder / "server.log"),
        ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy,
    ):
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}", paths
        proxy.shutdown()
