"""Stores of conversations to test: a SQLite file, and a database of the npm package @zeit/cosmosdb-server.

The emulator keeps its data in memory and speaks Cosmos DB's REST protocol, with ETags and SQL queries. Where it falls
short of Azure's service:

- it fails with 500 when a document is read that is not there (so does its last release, @vercel/cosmosdb-server 1.0.1):
  relay.py, which all requests pass, makes it the 404 that Azure sends;
- its SQL knows no OFFSET and LIMIT: the store says TOP, which both know;
- it takes any key, and knows no credentials of Entra ID;
- it never throttles and has no limit for a document's size: relay.py answers in its place there;
- it knows nothing of indexing policies and throughput, and what it costs to list says nothing of Azure's costs;
- it is one process with one copy of the data: consistency between regions cannot be seen.
"""

import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.history import History, open_history
from tests.flows.parts import absent
from tests.flows.relay import relaying
from tests.serving.server import until

PACKAGE = Path(__file__).parent / "cosmos_emulator"
NO_EMULATOR = "no emulator of Cosmos DB"
#: Any will do for the emulator; the client wants base64.
KEY = "bm9uZSBuZWVkZWQ="


@dataclass
class Store:
    """An empty store, by the settings that lead to it."""

    environment: dict[str, str]
    opened: list[History] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.environment["PHIKIT_HISTORY"].partition(":")[0]

    def open(self) -> History:
        """Open it once more, as another process would."""
        history = open_history(self.environment)
        self.opened.append(history)
        return history

    def close(self) -> None:
        for history in self.opened:
            history.close()


@dataclass(frozen=True)
class Emulator:
    """The emulator that runs, at its own port, and where clients find it: behind the relay."""

    port: int
    uri: str


def sqlite_store(path: Path) -> Store:
    """A store in a file that is not there yet."""
    return Store({"PHIKIT_HISTORY": f"sqlite:{path}"})


def cosmos_store(emulator: Emulator, uri: str = "") -> Store:
    """A store in a database of its own; `uri`: of something that stands before the emulator."""
    return Store(
        {
            "PHIKIT_HISTORY": "cosmos",
            "PHIKIT_COSMOS_URI": uri or emulator.uri,
            "PHIKIT_COSMOS_KEY": KEY,
            "PHIKIT_COSMOS_DATABASE": f"test-{uuid.uuid4().hex}",
        }
    )


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def emulating(folder: Path) -> Iterator[Emulator]:
    """The emulator, installed into `folder` from its lock. Without npm the tests are skipped; in CI they fail."""
    if not shutil.which("npm") or not shutil.which("node"):
        absent(f"{NO_EMULATOR}: npm and node are not installed")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGE / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if installed.returncode:
        absent(f"{NO_EMULATOR}: npm could not install it: {installed.stderr[-300:]}")
    port = free_port()
    program = folder / "node_modules" / ".bin" / "cosmosdb-server"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["node", str(program), "--port", str(port), "--no-ssl"],
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:

        def listens() -> bool:
            assert process.poll() is None, f"the emulator ended:\n{(folder / 'log').read_text()}"
            return answers(port)

        until(listens, "the emulator listens")
        with relaying(port) as relay:
            yield Emulator(port, relay.uri)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
