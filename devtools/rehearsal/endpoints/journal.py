"""What can be read of a deployment's containers: how far they came, what befell them, what they said.

journal = Journal(home / "deployments" / "phikit" / "blue")
journal.event("Pulling", "Start pulling container image")
journal.text(100)        # what getLogs answers

It lies on disk: what a container said before the emulator was restarted can still be read.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from pathlib import Path

from devtools.rehearsal.endpoints import wording

#: Steps on the way to a running container, in Azure's words and order.
STEPS = ("SystemSetup", "UserContainerImagePull", "ModelDownload", "UserContainerStart")
WAITING, GOING_ON, DONE = "Waiting", "InProgress", "Succeeded"
#: Events that are shown, and bytes of a log from which on its older half goes.
EVENTS = 50
LONGEST = 8 * 1024 * 1024


class Journal:
    """One deployment's, over all of its containers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._state: dict = {"steps": dict.fromkeys(STEPS, WAITING), "events": []}
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "events.json"
        if file.is_file():
            self._state = json.loads(file.read_text(encoding="utf-8"))

    def begin(self) -> None:
        """A new set of containers is begun: the steps are all before it."""
        with self._lock:
            self._state["steps"] = dict.fromkeys(STEPS, WAITING)
            self._write()

    def step(self, name: str, state: str) -> None:
        """How far one of the STEPS is."""
        with self._lock:
            self._state["steps"][name] = state
            self._write()

    def event(self, name: str, message: str, *, warning: bool = False) -> None:
        """Something happened to a container."""
        kind = "Warning" if warning else "Normal"
        line = f"Kind: Pod, Name: {name}, Type: {kind}, Time: {wording.moment()}, Message: {message}"
        with self._lock:
            self._state["events"] = [*self._state["events"], line][-EVENTS:]
            self._write()

    def fetched(self, line: str) -> None:
        """What the storage initializer says."""
        self._append("storage.log", f"{wording.moment()} {line}\n".encode())

    def output(self, piece: bytes) -> None:
        """What a container said."""
        self._append("container.log", piece)

    def text(self, lines: int) -> str:
        """The inference server's log as it is asked for: where it stands, events, the last lines."""
        with self._lock:
            steps = [f"{name}: {state}" for name, state in self._state["steps"].items()]
            events = list(self._state["events"])
            said = self._tail("container.log", lines)
        return "\n".join(
            ["Instance status:", *steps, "", "Container events:", *events, "", "Container logs:", *said, ""]
        )

    def storage_text(self, lines: int) -> str:
        """The storage initializer's log."""
        with self._lock:
            return "\n".join([*self._tail("storage.log", lines), ""])

    def _append(self, name: str, piece: bytes) -> None:
        file = self._folder / name
        with self._lock:
            if not self._folder.is_dir():
                return
            with file.open("ab") as log:
                log.write(piece)
                size = log.tell()
            if size > LONGEST:
                content = file.read_bytes()[size // 2 :]
                file.write_bytes(content.partition(b"\n")[2])

    def _tail(self, name: str, lines: int) -> list[str]:
        file = self._folder / name
        if not file.is_file():
            return []
        with file.open(encoding="utf-8", errors="replace") as log:
            return [line.rstrip("\n") for line in deque(log, maxlen=lines)]

    def _write(self) -> None:
        # (a deployment that is being deleted has no folder any more, and nobody who would read this)
        if not self._folder.is_dir():
            return
        (self._folder / "events.json").write_text(json.dumps(self._state), encoding="utf-8")
