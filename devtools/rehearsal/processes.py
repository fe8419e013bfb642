"""Programs that the emulator starts beside itself: each in a group of its own, noted, and ended with all it started.

    processes.start("azurite", ["node", ...], log=home / "azurite.log", environment={...})
    processes.end_all()

One whose emulator was killed is ended by the next emulator of the same home.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from devtools.rehearsal.store import Store

KIND = "processes"
#: Seconds between SIGTERM and SIGKILL.
GRACE = 8.0


class Processes:
    """What was started and is not ended."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[int, subprocess.Popen] = {}
        self._lock = threading.Lock()

    def start(
        self,
        name: str,
        command: list[str],
        *,
        environment: dict[str, str],
        log: Path | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen:
        """Start a program; what it says goes to `log`, or can be read from its `stdout`."""
        with contextlib.ExitStack() as files:
            out: IO | int = files.enter_context(log.open("ab")) if log else subprocess.PIPE
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # a group of its own: with it ends whatever it starts itself
                start_new_session=True,
            )
        with self._lock:
            self._running[process.pid] = process
        self._store.put(KIND, str(process.pid), {"name": name, "born": born(process.pid)})
        return process

    def end(self, process: subprocess.Popen, grace: float = GRACE) -> int:
        """SIGTERM to the group (none when `grace` is 0), then SIGKILL to what is left of it; the exit code."""
        with self._lock:
            # (the number of a group that is gone may be somebody else's by now)
            known = process.pid in self._running
        if known:
            if grace > 0 and process.poll() is None:
                _signal(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(grace)
            # also when the program itself is gone: what it started may not be
            _signal(process.pid, signal.SIGKILL)
        code = process.wait()
        with self._lock:
            self._running.pop(process.pid, None)
        self._store.delete(KIND, str(process.pid))
        return code

    def end_all(self) -> None:
        """End everything, all at once."""
        with self._lock:
            running = list(self._running.values())
        threads = [threading.Thread(target=self.end, args=(process,)) for process in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def end_leftovers(self) -> list[str]:
        """End what an emulator that was killed left behind; the names of what there was."""
        ended = []
        for key, body in self._store.all(KIND):
            # a number that another program has by now has another birth
            if body["born"] and born(int(key)) == body["born"]:
                _signal(int(key), signal.SIGKILL)
                ended.append(body["name"])
            self._store.delete(KIND, key)
        return ended


def born(pid: int) -> str:
    """When a process began, as the system words it: with its number, that names it for good. Empty: there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # behind the name, which may hold anything: state is the first field, the beginning the twentieth
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()


def wait_gone(pid: int, birth: str, seconds: float) -> bool:
    """Wait until a process that is nobody's child here is gone; whether it went in time."""
    deadline = time.monotonic() + seconds
    while born(pid) == birth:
        if time.monotonic() > deadline:
            return False
        # (the system tells its end to its parent alone)
        time.sleep(0.02)
    return True


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
