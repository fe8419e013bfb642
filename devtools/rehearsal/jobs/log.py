"""What a job says and what is done for it, written to the storage as it comes.

log = Log(rehearsal, "job-1")
log.say(b"step 1\\n")           # user_logs/std_log.txt: the command's own words
log.note("pulling the image")  # system_logs/lifecycler/lifecycler.log
log.flush()

Words are gathered and written a few times a second, as blob storage takes 50,000 pieces of a log and no more.
"""

from __future__ import annotations

import threading
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx

from devtools.rehearsal.assets import addresses

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

USER, SYSTEM = "user_logs/std_log.txt", "system_logs/lifecycler/lifecycler.log"
#: Bytes that are written at once, and that are kept at most while the storage does not take them.
PIECE, KEPT = 4 * 1024 * 1024, 64 * 1024 * 1024


class Log:
    """Both logs of one job."""

    def __init__(self, rehearsal: Rehearsal, job: str) -> None:
        self._rehearsal, self._job = rehearsal, job
        self._lock = threading.Lock()
        self._waiting = {USER: bytearray(), SYSTEM: bytearray()}

    def say(self, piece: bytes) -> None:
        """Keep what the command says; `flush` writes it."""
        with self._lock:
            waiting = self._waiting[USER]
            waiting += piece
            del waiting[KEPT:]

    def note(self, line: str) -> None:
        """Write what is done for the job, with the time."""
        with self._lock:
            self._waiting[SYSTEM] += f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n".encode()
        self.flush()

    def flush(self) -> None:
        """Write what there is; what the storage does not take is tried again with the next one."""
        with self._lock:
            for name, waiting in self._waiting.items():
                place = addresses.blob(self._rehearsal, addresses.artifacts(self._job, name))
                assert place
                try:
                    while waiting:
                        self._rehearsal.blobs.append(*place, bytes(waiting[:PIECE]))
                        del waiting[:PIECE]
                except httpx.HTTPError:
                    traceback.print_exc()
