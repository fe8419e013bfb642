"""What runs a task, and what a task is: the one seam between the command line and the machines that do the work.

Implemented by devtools/docker_backend.py and devtools/venv_backend.py; devtools/local.py chooses between them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devtools.errors import BadInput


@dataclass(frozen=True)
class Task:
    """One program that runs to its end. The command line is for bash and says `python`, never a path to one.

    Files keep their paths in every backend, so that what a program prints or records is true on this machine too; only
    the code folder may lie elsewhere, and the program finds it in PHIKIT_CODE.
    """

    name: str
    """Short, for people; the container's name is made of it."""
    command: str
    code: Path
    """Folder with the program, read-only to it; in a container it lies below /phikit, by its own name."""
    workdir: Path | None = None
    """Folder it starts in; None: the code folder."""
    image: str = "phikit-runtime:cpu"
    reads: Sequence[Path] = ()
    """Files and folders beside the code that it may read."""
    writes: Sequence[Path] = ()
    """Folders that it may change; made when missing, and removed again if they stay empty."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables for it; may hold secrets, so they are never printed."""
    network: str = "none"
    """`none`, `on`, or `host` (on, and this machine's own loopback is reachable)."""
    ports: Mapping[int, int] = field(default_factory=dict)
    """Ports it serves on, each with the port of `address` that leads there."""
    address: str = "127.0.0.1"
    """Address of this machine that its ports are published on; a program outside a container binds by itself."""
    packages: Sequence[str] = ()
    """Modules that it imports and that a virtual environment may lack."""
    gpu: bool = False
    grace: float = 120.0
    """Seconds that it gets to end by itself (to write a checkpoint) after Ctrl-C or SIGTERM."""


class Backend(Protocol):
    """A place where tasks run."""

    name: str
    """As `--backend` says it."""
    reason: str
    """One line for people: which backend this is, and why it was taken."""

    def prepare(self, task: Task) -> None:
        """Make what the task needs ready: at once when it is there already, minutes when an image has to be built.

        Idempotent. Raises KitError with the command that mends it when this cannot be done.
        """

    def run(self, task: Task) -> int:
        """Prepare, start the task, pass its output on as it comes, and return its exit code.

        Blocks for as long as the task runs. SIGINT and SIGTERM that this process gets meanwhile go to the task, which
        has `task.grace` seconds to end; nothing of it is left running afterwards. Not idempotent: each call is a run.
        """


@contextlib.contextmanager
def folders_made(folders: Sequence[Path]) -> Iterator[None]:
    """Make the folders that are missing, as the caller; remove those again that are still empty afterwards.

    Raises BadInput when one cannot be made, or is a file.
    """
    made: list[Path] = []
    findings: list[str] = []
    for folder in folders:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            findings.append(f"{folder}: is a file, or lies under one; name a folder")
        except OSError as error:
            findings.append(f"{folder}: cannot be made ({error.strerror}); choose another folder")
        else:
            if not os.access(folder, os.W_OK | os.X_OK):
                findings.append(f"{folder}: is not writable; change its permissions, or choose another folder")
        made += missing
    try:
        if findings:
            raise BadInput(findings)
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
