"""The scoring server as it really runs: `python -m serving`, listening on a free port, ended by its process id."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Seconds after which a test gives up; a loaded machine must not fail it.
DEADLINE = 120
#: Tokens for which the random model goes on: it has learnt no end.
ENDLESS = 1500

QUESTION = "Who founded Microsoft?"
ANSWER = "Microsoft was founded by Bill Gates and Paul Allen."
MESSAGES = [{"role": "user", "content": QUESTION}]
#: A request that is understood, for each route that takes a body.
GOOD = {
    "/v1/chat/completions": {"model": "phikit", "messages": MESSAGES},
    "/score": {"input_data": [QUESTION]},
    "/invocations": {"inputs": [{"messages": MESSAGES}]},
}
ROUTES = list(GOOD)
CHAT = "/v1/chat/completions"


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> None:
    """Look until `condition` holds; fail after some time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def environment(**settings: object) -> dict[str, str]:
    """The environment of a server: this one's, with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PHIKIT_", "AZUREML_"))}
    # (one thread: servers of tests share the machine, and their models are tiny)
    settings = {"threads": 1, **settings}
    return kept | {f"PHIKIT_SERVE_{name.upper()}": str(value) for name, value in settings.items()}


def run(**settings: object) -> subprocess.CompletedProcess:
    """A server that is expected to end by itself."""
    command = [sys.executable, "-m", "serving"]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**settings), capture_output=True, text=True, timeout=DEADLINE, check=False
    )


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What an error says: in OpenAI's shape, or in MLflow's."""
        return self.json["error"]["message"] if "error" in self.json else self.json["message"]


class Server:
    """A server that runs."""

    def __init__(self, process: subprocess.Popen, folder: Path, key: str | None) -> None:
        self.process = process
        self.port = 0
        self._folder = folder
        self._key = key

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return (self._folder / "err").read_text(encoding="utf-8")

    @property
    def log(self) -> list[dict]:
        """The access log."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def ask(self, path: str, body: Any = None, *, method: str = "", headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**self.authorization, **({"Content-Type": "application/json"} if data is not None else {})}
        sent |= headers or {}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)) as connection:
            connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    def request(self, path: str, body: Any, headers: str = "") -> bytes:
        """A request as it goes over a bare connection."""
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in self.authorization.items()]
        head = "\r\n".join([*lines, f"Content-Length: {len(data)}", *filter(None, [headers])])
        return head.encode() + b"\r\n\r\n" + data

    def metrics(self) -> dict[str, float]:
        """Every number at /metrics, by its name with its labels."""
        lines = self.ask("/metrics").body.decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    def busy(self) -> tuple[float, float]:
        """Slots in use, and prompts in the queue."""
        metrics = self.metrics()
        return metrics["phikit_slots_busy"], metrics["phikit_queue_prompts"]

    def until_idle(self, seconds: float = DEADLINE) -> None:
        """Wait for every slot to be free and the queue to be empty."""
        until(lambda: self.busy() == (0, 0), "all slots free and the queue empty", seconds)

    def is_healthy(self) -> None:
        """Fail unless it answers as if nothing had happened."""
        assert self.ask("/health").status == 200
        assert self.ask("/ready").status == 200
        self.until_idle()
        assert self.ask("/score", GOOD["/score"]).status == 200

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code, which must come in time."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@contextmanager
def launched(folder: Path, command: list[str], **settings: object) -> Iterator[Server]:
    """A server from when it listens, ready or not, to the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(port=0, **settings),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    server = Server(process, folder, str(settings["key"]).split(",")[0] if settings.get("key") else None)

    def listens() -> bool:
        assert process.poll() is None, f"the server ended with {process.returncode}:\n{server.err[-4000:]}"
        if found := re.search(r"listening on http://[^ ]+:(\d+)", server.err):
            server.port = int(found[1])
        return found is not None

    try:
        until(listens, "the server listens")
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def serving(model: Path, folder: Path, **settings: object) -> Iterator[Server]:
    """A server that is ready, for as long as the block takes; `settings` are those of serving/settings.py."""
    with launched(folder, [sys.executable, "-m", "serving"], model=model, **settings) as server:

        def ready() -> bool:
            assert server.process.poll() is None, f"the server ended:\n{server.err[-4000:]}"
            return server.ask("/ready").status == 200

        until(ready, "the server is ready")
        yield server


def endless(path: str, stream: bool = False, tokens: int = ENDLESS) -> dict:
    """A request that the random model answers up to the last token."""
    if path == CHAT:
        return {**GOOD[path], "max_tokens": tokens, "stream": stream}
    return {**GOOD[path], "params": {"max_new_tokens": tokens, "temperature": 0}}


@contextmanager
def begun(server: Server, path: str, stream: bool = False, **options: int) -> Iterator[socket.socket]:
    """A bare connection over which a request is in work."""
    with closing(server.connect()) as connection:
        connection.sendall(server.request(path, endless(path, stream, **options)))
        until(lambda: server.busy()[0] >= 1, "the request is in work")
        yield connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received
