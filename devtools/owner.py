"""Which process of which machine something belongs to, so that what a killed one left can be told from what goes on.

label = of_process(os.getpid())
is_alive(label)
"""

from __future__ import annotations

import socket
from pathlib import Path


def of_process(pid: int) -> str:
    """A process that cannot be mistaken for a later one with the same pid: host, pid, start time."""
    return f"{socket.gethostname()}/{pid}/{_start_time(pid)}"


def _start_time(pid: int) -> str:
    try:
        # field 22 of /proc/PID/stat; the command in field 2 may hold blanks, but ends at the last parenthesis
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def is_alive(owner: str) -> bool:
    """Whether that process still runs; true where this machine cannot tell."""
    host, _, rest = owner.partition("/")
    pid, _, started = rest.partition("/")
    if host != socket.gethostname() or not started:
        return True  # of another machine, or of one without /proc: not ours to judge
    return _start_time(int(pid)) == started
