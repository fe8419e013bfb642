"""What the tests of the chat flow share: the conversation they ask, and servers in an endpoint's place.

with answering(response("200 OK", models()), stream(delta("Bill"), end=False)) as uri: ...
"""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

from tests.flows.bad_flow import response, stream

QUESTION = "Who founded Microsoft?"
MESSAGES = [{"role": "user", "content": QUESTION}]
KEY = "key-of-the-tests"
ENDED = b"data: [DONE]\n\n"


def models(name: str = "phikit") -> bytes:
    """What /v1/models answers."""
    return response("200 OK", json.dumps({"object": "list", "data": [{"id": name, "object": "model"}]}).encode())


def delta(text: str, finish: str | None = None) -> bytes:
    """One event of a streamed answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return (
        b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


def refusal(status: str, message: str, *headers: str) -> bytes:
    """An error in OpenAI's shape."""
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def whole(text: str) -> bytes:
    """A streamed answer that ends."""
    return stream(delta(text), delta("", "stop"), ENDED)


class Endpoint:
    """A server that gives each path its answers in turn, the last one for ever, and keeps what it was asked."""

    def __init__(self, answers: dict[str, list[bytes]]) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self._answers = answers

    def answer(self, connection: socket.socket) -> None:
        """Answer one request and close the connection."""
        with connection, contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(1 << 16)
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            while len(body) < length:
                body += connection.recv(1 << 16)
            path = head.split()[1].decode()
            self.asked.append((path, head + b"\r\n\r\n" + body))
            left = self._answers.get(path, [response("404 Not Found", b"{}")])
            # each request has a connection of its own
            told = left.pop(0) if len(left) > 1 else left[0]
            connection.sendall(told.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    def bodies(self, path: str) -> list[dict]:
        """The bodies that a path was sent."""
        return [json.loads(sent.partition(b"\r\n\r\n")[2]) for asked, sent in self.asked if asked == path]


@contextlib.contextmanager
def endpoint(**answers: list[bytes]) -> Iterator[tuple[str, Endpoint]]:
    """A scoring URI and what listens there: `models`, `chat` and `score` name the routes."""
    routes = {"models": "/v1/models", "chat": "/v1/chat/completions", "score": "/score"}
    server = Endpoint({routes[name]: list(given) for name, given in answers.items()})
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=server.answer, args=[connection], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/score", server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
