"""A server in the flow's place that answers as it is told, to the byte: what a flow in trouble may send.

with answering(b"HTTP/1.1 200 OK\\r\\n…") as uri: ...
"""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def answering(*pieces: bytes, hold: bool = False) -> Iterator[str]:
    """The address of a server that answers each request with these pieces, then closes the connection.

    hold: it keeps the connection open instead, until the block ends.
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=answer, args=[connection], daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 20)
                for piece in pieces:
                    connection.sendall(piece)
                if hold:
                    over.wait()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/score"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


def response(status: str, body: bytes, kind: str = "application/json") -> bytes:
    """A whole answer."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def stream(*pieces: bytes, end: bool = True) -> bytes:
    """Server-sent events in chunks; without its end it has broken off."""
    chunks = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunks) + (b"0\r\n\r\n" if end else b"")
