"""The emulator's process: certificate, storage, registry, tracking server, gateway, proxy, and all that jobs start.

python -m devtools.rehearsal.server HOME

It says `ready` on its first line, or `error: ...`; SIGTERM ends it and everything that it started. What it knows lies
below HOME and is there again at the next start.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from devtools.errors import KitError
from devtools.rehearsal import session
from devtools.rehearsal.azurite import Blobs
from devtools.rehearsal.operations import Operations
from devtools.rehearsal.processes import Processes
from devtools.rehearsal.recorder import Recorder
from devtools.rehearsal.refusals import Refusals
from devtools.rehearsal.runner import Runner
from devtools.rehearsal.store import Store
from devtools.settings import Settings

LOCK = "lock"


@dataclass
class Rehearsal:
    """What every handler has."""

    home: Path
    """The folder of all its state."""
    store: Store
    operations: Operations
    refusals: Refusals
    recorder: Recorder
    processes: Processes
    blobs: Blobs
    runner: Runner
    proxy_port: int
    registry_port: int
    """The registry's TLS front: images are called localhost:PORT/name."""
    registry: Future[int] = field(default_factory=Future)
    tracking: Future[int] = field(default_factory=Future)

    @property
    def registry_upstream(self) -> int:
        """The port of the plain registry, once it answers; raises KitError where there is none."""
        return self.registry.result()

    @property
    def tracking_port(self) -> int:
        """The port of the MLflow server, once it answers; raises KitError where there is none."""
        return self.tracking.result()


async def serve(home: Path, settings: Settings) -> None:
    """Run an emulator until SIGTERM or SIGINT; raises KitError when a part of it does not start."""
    # (what a message about this home needs is here by now; the rest takes its time to import)
    from devtools.rehearsal.assembly import Assembly

    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, asked.set)
    assembly = Assembly(home, settings)
    try:
        await loop.run_in_executor(None, assembly.begin)
        await assembly.open()
        if not asked.is_set():
            session.note(home, os.getpid(), assembly.facts())
            _say("ready")
            # whoever read that line reads no more; what is printed from here on goes to the log
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            await asked.wait()
    finally:
        session.forget(home)
        await assembly.close()
        await loop.run_in_executor(None, assembly.end)


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the home; raises KitError when another emulator does, once it is plain that it is not about to end."""
    deadline = time.monotonic() + session.END
    with (home / LOCK).open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if session.running(home) or time.monotonic() > deadline:
                    raise KitError(f"{home}: another rehearsal runs there (phikit rehearsal status)") from error
            # (a lock cannot be waited for with an end to the waiting)
            time.sleep(0.05)
        yield


def main() -> int:
    """Run the emulator of the home that the command line names."""
    home = Path(sys.argv[1]).absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        with alone(home):
            asyncio.run(serve(home, Settings.load()))
    except KitError as error:
        _say(f"error: {error}")
        return error.code
    except Exception as error:
        # whoever waits is told in a line, the log has the rest
        traceback.print_exc()
        _say(f"error: {home}: {type(error).__name__}: {error}")
        return KitError.code
    return 0


def _say(line: str) -> None:
    # whoever started it may have gone since
    with suppress(OSError):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
