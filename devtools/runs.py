"""The runs/ folder: names, what each run was asked to do (job.json), which one to go on with, and runs/latest.

phikit runs                       # a table
phikit runs rm tiny_cpu-20261122-101500
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devtools.errors import BadInput

JOB = "job.json"
LATEST = "latest"
#: What the training writes into run.json when everything is there.
FINISHED = "finished"
#: Where a run is trained, if its job.json says nothing else.
HERE = "on this machine"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Run:
    """One run's folder. What is in it was written by the training, job.json by this module."""

    folder: Path

    @property
    def name(self) -> str:
        """As --name says it."""
        return self.folder.name

    @property
    def job(self) -> dict[str, Any]:
        """What the run was asked to do; empty when nothing readable says so."""
        return _read_json(self.folder / JOB)

    @property
    def where(self) -> str:
        """Where it is trained: its checkpoints lie there and nowhere else."""
        return str(self.job.get("where") or HERE)

    @property
    def metrics(self) -> dict[str, Any]:
        """`before`, `after` and `train`; empty until the run is whole."""
        return _read_json(self.folder / "metrics.json")

    @property
    def is_whole(self) -> bool:
        """Whether the run came to its end: nothing is left to resume."""
        return self._state == FINISHED

    @property
    def is_locked(self) -> bool:
        """Whether a training holds the folder right now."""
        try:
            with (self.folder / ".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, as a training does; raises BadInput while somebody else does."""
        try:
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise BadInput(f"{self.folder}: cannot be written ({error.strerror}); choose another --name") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadInput(
                    f"runs/{self.name}: another command is at work on it; wait for it, or choose another --name"
                ) from error
            yield

    @property
    def state(self) -> str:
        """One word for people: finished, running or unfinished."""
        if self.is_whole:
            return FINISHED
        return "running" if self.is_locked else "unfinished"

    @property
    def _state(self) -> str:
        return str(_read_json(self.folder / "run.json").get("state", ""))


class Runs:
    """The folder of all runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Run]:
        """Every run, newest first."""
        # neither runs/latest, nor what is being made or removed
        runs = [Run(job.parent) for job in self.folder.glob(f"*/{JOB}") if NAME.fullmatch(job.parent.name)]
        runs = [run for run in runs if not run.folder.is_symlink()]
        return sorted(runs, key=lambda run: (run.job.get("created", ""), run.name), reverse=True)

    def get(self, name: str) -> Run:
        """The run of that name; raises BadInput when there is none."""
        run = Run(self.folder / check_name(name))
        if not (run.folder / JOB).is_file():
            raise BadInput(f"runs/{name}: there is no such run; `phikit runs` lists them")
        return run

    def claim(
        self,
        inputs: dict[str, Any],
        prefix: str,
        name: str | None = None,
        files: dict[str, str] | None = None,
        where: str = HERE,
    ) -> tuple[Run, bool]:
        """The run for these inputs, and whether it is new: the one of that name, or an unfinished one, or a new one.

        A new run's folder appears together with its job.json, which notes where `files` lay. Raises BadInput when the
        name belongs to a whole run, or to one of other inputs or of another place.
        """
        job = {"inputs": inputs, "files": files or {}, "where": where}
        if name is None:
            for run in self.all():
                if run.job.get("inputs") == inputs and run.where == where and not run.is_whole:
                    return run, False
            return self._create_unnamed(job, prefix), True
        run = Run(self.folder / check_name(name))
        if not run.folder.exists() and self._create(run, job):
            return run, True
        if not (run.folder / JOB).is_file():
            raise BadInput(f"runs/{name}: is there and is no run; choose another --name")
        if run.is_whole:
            raise BadInput(
                f"runs/{name}: is a finished run; choose another --name, or remove it: phikit runs rm {name}"
            )
        if run.where != where:
            raise BadInput(
                f"runs/{name}: was begun {run.where}, and goes on there alone; choose another --name, "
                f"or remove it: phikit runs rm {name}"
            )
        before = run.job.get("inputs", {})
        changed = [key for key in inputs if before.get(key) != inputs[key]]
        if changed:
            raise BadInput(
                f"runs/{name}: was begun with another {', '.join(changed)}; choose another --name, "
                f"or remove it: phikit runs rm {name}"
            )
        return run, False

    def withdraw(self, run: Run) -> None:
        """Take back a new run that came to nothing: removed if it holds no more than its job.json and lock."""
        if {path.name for path in run.folder.iterdir()} <= {JOB, ".lock"} and not run.is_locked:
            shutil.rmtree(run.folder)

    def point_latest(self, run: Run | None) -> None:
        """Make runs/latest lead to this run (atomically, by a relative link), or to nothing."""
        link = self.folder / LATEST
        if run is None:
            link.unlink(missing_ok=True)
            return
        if link.exists() and not link.is_symlink():
            raise BadInput(f"{link}: is no link; move it away, runs/{LATEST} points at the newest whole run")
        beside = self.folder / f".{LATEST}-{os.getpid()}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(run.name, target_is_directory=True)
        beside.replace(link)

    def remove(self, name: str) -> None:
        """Delete a run; runs/latest then leads to the newest whole one that is left. Raises BadInput while it runs."""
        run = self.get(name)
        if run.is_locked:
            raise BadInput(f"runs/{name}: is being trained right now; stop it first")
        link = self.folder / LATEST
        was_latest = link.is_symlink() and link.readlink() == Path(run.name)
        # out of sight first: a half-deleted run is never listed
        gone = self.folder / f".removed-{run.name}-{os.getpid()}"
        run.folder.replace(gone)
        if was_latest:
            self.point_latest(next((other for other in self.all() if other.is_whole), None))
        shutil.rmtree(gone)

    def _create_unnamed(self, job: dict[str, Any], prefix: str) -> Run:
        base = f"{prefix}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
        for suffix in ("", *(f"-{number}" for number in range(2, 100))):
            run = Run(self.folder / f"{base}{suffix}")
            if not run.folder.exists() and self._create(run, job):
                return run
        raise BadInput(f"runs/{base}: is taken, and so are its successors; give a --name")

    def _create(self, run: Run, job: dict[str, Any]) -> bool:
        """Whether this call made the folder: of two at once, one does."""
        beside = self.folder / f".new-{run.name}-{secrets.token_hex(4)}"
        try:
            beside.mkdir(parents=True)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            (beside / JOB).write_text(json.dumps(job | {"created": created}, indent=2) + "\n", encoding="utf-8")
            try:
                beside.rename(run.folder)
            except OSError:
                if not run.folder.exists():
                    raise
                shutil.rmtree(beside)
                return False
        except OSError as error:
            with contextlib.suppress(OSError):
                shutil.rmtree(beside)
            raise BadInput(f"{run.folder}: cannot be made ({error.strerror}); free the name, or the disk") from error
        return True


def check_name(name: str) -> str:
    """The name, if a run may have it; raises BadInput if not."""
    if not NAME.fullmatch(name) or name == LATEST:
        raise BadInput(
            f"--name {name[:60]}: must be letters, digits, '.', '_' and '-' (100 at most), and not `{LATEST}`"
        )
    return name


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
