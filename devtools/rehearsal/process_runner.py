"""Jobs and deployments as processes of this machine, where no Docker engine answers.

The packages are those of this Python's environment, whatever the image would hold. Where a container would see a
mount, the process sees its source: paths in the command and in the variables are rewritten.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from devtools.rehearsal import programs
from devtools.rehearsal.processes import Processes
from devtools.rehearsal.runner import Mount
from devtools.rehearsal.wire import WireError
from devtools.settings import inherited

#: What of this machine's environment a program gets.
KEPT = ("LANG", "LC_ALL", "TMPDIR", "USER", "HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
PIECE = 64 * 1024


class ProcessRunner:
    """Processes of one home."""

    kind = "process"

    def __init__(self, home: Path, processes: Processes) -> None:
        self._home = home
        self._processes = processes
        self._started: list[StartedProcess] = []

    def pull(self, image: str) -> None:
        """Nothing: there are no images here; see Runner.pull."""

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
    ) -> StartedProcess:
        """Start a process; see Runner.start.

        Several may want the same port: each gets one of its own, and its number stands in for the other wherever a
        variable is just that, and wherever the command names it.
        """
        if not command:
            raise WireError(
                400,
                "CommandMissing",
                f"{name}: what image {image} does by itself is known to a Docker engine alone, and none answers here; "
                "name a command, or start an engine",
            )
        outside = programs.free_port() if port else None

        def here(text: str, names_port: re.Pattern[str]) -> str:
            moved = _rewritten(text, mounts)
            return names_port.sub(str(outside), moved) if outside else moved

        scratch = self._home / "processes" / name
        scratch.mkdir(parents=True, exist_ok=True)
        mine = {key: value for key, value in inherited().items() if key in KEPT}
        # `python` is this one
        path = f"{Path(sys.executable).parent}:{inherited().get('PATH', '/usr/bin:/bin')}"
        told = {key: here(value, re.compile(rf"^{port}$")) for key, value in environment.items()}
        words = [here(word, re.compile(rf"(?<![\w./]){port}(?![\w./])")) for word in command]
        folder = Path(_rewritten(workdir, mounts)) if workdir else scratch
        try:
            process = self._processes.start(
                name,
                words,
                environment={"PATH": path, "PYTHONUNBUFFERED": "1"} | mine | told,
                cwd=folder if folder.is_dir() else scratch,
            )
        except OSError as error:
            raise WireError(400, "ContainerStartFailed", f"{name}: {shlex.join(words)}: {error}") from error
        started = StartedProcess(name, f"127.0.0.1:{outside}" if outside else None, process, self._processes)
        self._started.append(started)
        return started

    def end_all(self) -> None:
        """Kill what goes on; see Runner.end_all."""
        for started in self._started:
            started.kill()


class StartedProcess:
    """One process and what it started; see Started."""

    def __init__(self, name: str, address: str | None, process: subprocess.Popen, processes: Processes) -> None:
        self.name, self.address = name, address
        self._process = process
        self._processes = processes

    def output(self) -> Iterator[bytes]:
        """Both streams as one."""
        assert self._process.stdout
        while piece := self._process.stdout.read1(PIECE):
            yield piece

    def wait(self) -> int:
        """The exit code."""
        self._process.wait()
        # (with whatever it left behind, as a container would end)
        code = self._processes.end(self._process, 0)
        return code if code >= 0 else 128 - code

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self, grace: float) -> None:
        """SIGTERM, then SIGKILL."""
        self._processes.end(self._process, grace)

    def kill(self) -> None:
        """SIGKILL."""
        self._processes.end(self._process, 0)


def _rewritten(text: str, mounts: Sequence[Mount]) -> str:
    """A text with the sources of mounts in place of their targets, wherever these stand as whole parts of a path."""
    for mount in sorted(mounts, key=lambda mount: len(mount.target), reverse=True):
        text = re.sub(rf"{re.escape(mount.target.rstrip('/'))}(?![\w.-])", lambda _, m=mount: str(m.source), text)
    return text
