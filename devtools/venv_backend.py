"""Runs tasks in the virtual environment that the command line itself runs in: for machines without a Docker engine."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from devtools.backend import Task, folders_made
from devtools.errors import BadInput, KitError
from devtools.settings import inherited
from devtools.supervision import Signals

PR_SET_PDEATHSIG = 1


class VenvBackend:
    """Tasks as child processes, with this environment's `python` first on PATH."""

    name = "venv"

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def prepare(self, task: Task) -> None:
        """Check that the environment has what the task imports; instant, changes nothing."""
        missing = [package for package in task.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise KitError(
                f"the virtual environment lacks {', '.join(missing)}: run `make setup-train` (or start Docker)"
            )
        if task.gpu:
            raise BadInput(
                "--gpu: the virtual environment has the CPU build of torch; start Docker, or leave --gpu out"
            )

    def run(self, task: Task) -> int:
        """Run the task; see Backend.run. On Linux it is killed when this process is killed (`kill -9`)."""
        self.prepare(task)
        findings = [f"{path}: there is no such file or folder" for path in task.reads if not path.exists()]
        if findings:
            raise BadInput(findings)
        environment = inherited() | dict(task.environment)
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        environment["PHIKIT_CODE"] = str(task.code)
        environment["PYTHONUNBUFFERED"] = "1"
        # `python` must find this environment's packages, not those that another one put here
        environment.pop("PYTHONHOME", None)
        with folders_made(task.writes), Signals() as signals:
            process = subprocess.Popen(
                ["bash", "-c", task.command],
                cwd=task.workdir or task.code,
                env=environment,
                stdin=subprocess.DEVNULL,
                # a group of its own: a Ctrl-C in the terminal reaches the task once, through `supervise`, not twice
                process_group=0,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
            try:
                code = signals.supervise(
                    process.wait,
                    lambda number: _signal_group(process, number),
                    lambda: _signal_group(process, signal.SIGKILL),
                    task.grace,
                )
            finally:
                # whatever the command left in the background
                _signal_group(process, signal.SIGKILL)
        return 128 - code if code < 0 else code


def _signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _die_with_parent() -> None:
    """In the child: have Linux kill it with the command line, so that the same command can go on where it was."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
