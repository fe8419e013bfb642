"""What runs jobs and deployments: containers where a Docker engine answers, else processes of this machine.

    started = rehearsal.runner.start("job-1", image="phikit-runtime:cpu", command=["python", "train.py"], ...)
    for piece in started.output(): ...
    started.wait()

PHIKIT_REHEARSAL_RUNNER=process chooses the latter where there is an engine, =docker insists on one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devtools.errors import BadInput, KitError, nearest
from devtools.rehearsal.processes import Processes
from devtools.settings import Settings

KINDS = ("auto", "docker", "process")


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine, as the program sees it."""

    source: Path
    target: str
    read_only: bool = False


class Started(Protocol):
    """A program that was started."""

    name: str
    address: str | None
    """"127.0.0.1:PORT", which leads to the port that it was started with; None where it has none, or ended at once."""

    def output(self) -> Iterator[bytes]:
        """What it says, from the beginning, as it comes, to its end."""

    def wait(self) -> int:
        """Its exit code, once it has ended; 128 and the signal's number where one ended it."""

    def is_alive(self) -> bool:
        """Whether it goes on."""

    def stop(self, grace: float) -> None:
        """Ask it to end (SIGTERM), end it (SIGKILL) after so many seconds; it is gone afterwards."""

    def kill(self) -> None:
        """End it at once, as a node that is lost does."""


class Runner(Protocol):
    """Starts programs."""

    kind: str
    """"docker" or "process"."""

    def pull(self, image: str) -> None:
        """Have an image; raises WireError where it cannot be had."""

    def start(
        self,
        name: str,
        *,
        image: str,
        command: list[str] | None,
        environment: Mapping[str, str],
        mounts: Sequence[Mount] = (),
        workdir: str | None = None,
        port: int | None = None,
        network_host: bool = False,
    ) -> Started:
        """Start a program of an image.

        Args:
            name: unique among what goes on.
            command: None: what the image itself does.
            mounts: what it sees of this machine.
            workdir: None: the image's own.
            port: what it listens on; `Started.address` leads there.
            network_host: it shares this machine's loopback (the emulator's proxy is there).

        Raises:
            WireError: the image is missing, or the engine refuses the container.
        """

    def end_all(self) -> None:
        """End everything that was started for this home, by whichever emulator."""


def choose(
    settings: Settings, home: Path, processes: Processes, login: Callable[[str], tuple[str, str] | None]
) -> Runner:
    """The runner that this machine can have.

    Args:
        login: user and password for an image's registry; None: it asks for none.

    Raises:
        BadInput: PHIKIT_REHEARSAL_RUNNER is no kind of runner.
        KitError: it insists on containers, and no engine answers.
    """
    kind = settings.rehearsal_runner or "auto"
    if kind not in KINDS:
        raise BadInput(f"PHIKIT_REHEARSAL_RUNNER={kind}: is no kind of runner; {nearest(kind, KINDS)}")
    if kind != "process":
        from devtools.local import engine
        from devtools.rehearsal.container_runner import ContainerRunner

        try:
            return ContainerRunner(engine(settings), home, login)
        except KitError:
            if kind == "docker":
                raise
    from devtools.rehearsal.process_runner import ProcessRunner

    return ProcessRunner(home, processes)
