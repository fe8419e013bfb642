"""What stands between a client and Cosmos DB's emulator: it mends one answer, and gives others when it is told to.

The emulator fails with 500 when a document is read that is not there: here that becomes Azure's 404. And Azure
throttles, refuses and drops connections, which the emulator never does: here it is planned.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: What the emulator says of a document that is not there.
NOT_THERE = b"Cannot read properties of undefined"
#: As if nothing were planned.
PASS = "pass"
#: After the emulator has done what was asked, hang up instead of answering.
LOST = "lost"


class Relay(ThreadingHTTPServer):
    """`plan` holds what happens to the next requests for documents: a status, PASS or LOST; then they pass again."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.behind = port
        self.plan: list[int | str] = []
        self.asked: list[str] = []
        self.lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"http://localhost:{self.server_address[1]}/"


class Passing(BaseHTTPRequestHandler):
    """One connection of the client."""

    protocol_version = "HTTP/1.1"
    server: Relay

    def handle_one(self) -> None:
        """Answer one request: with what was planned, or with what the emulator says."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        planned = None
        if "/docs" in self.path:
            with self.server.lock:
                self.server.asked.append(f"{self.command} {self.path}")
                planned = self.server.plan.pop(0) if self.server.plan else None
        if isinstance(planned, int):
            message = json.dumps({"code": str(planned), "message": "planned\nin several lines"}).encode()
            self._send(planned, {"x-ms-retry-after-ms": "20", "Content-Type": "application/json"}, message)
            return
        behind = http.client.HTTPConnection("localhost", self.server.behind, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        behind.request(self.command, self.path, body, kept)
        response = behind.getresponse()
        answer = response.read()
        behind.close()
        if planned == LOST:
            self.close_connection = True
            self.connection.close()
            return
        if self.command == "GET" and response.status == 500 and NOT_THERE in answer:
            self._send(404, {"Content-Type": "application/json"}, b'{"code": "NotFound", "message": "not there"}')
            return
        # the account's document tells clients where to go from now on: here as well
        answer = answer.replace(f"https://localhost:{self.server.behind}/".encode(), self.server.uri.encode())
        dropped = ("transfer-encoding", "content-length", "connection")
        headers = {name: value for name, value in response.getheaders() if name.lower() not in dropped}
        self._send(response.status, headers, answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""


@contextmanager
def relaying(port: int) -> Iterator[Relay]:
    """A relay before the emulator at a port."""
    with Relay(port) as relay:
        thread = threading.Thread(target=relay.serve_forever, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()
