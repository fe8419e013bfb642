"""A run's folder: who may write in it, what it holds, and what a second start may go on from.

    python fine_tune.py --run-dir runs/first …

`run.json` carries the run's fingerprint (recipe, model, data) and its state. One process at a time holds the folder, by
a lock on `.lock` that the system takes back when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors import BadInput

FINISHED = "finished"
UNFINISHED = "unfinished"


class RunFolder:
    """The files of one run below `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state_file = path / "run.json"
        self.checkpoints = path / "checkpoints"
        self.cache = path / "cache"
        self.before = path / "before.json"

    def read_state(self) -> dict[str, Any]:
        """What `run.json` says; empty for a new run. Raises `BadInput` when it is damaged."""
        if not self.state_file.exists():
            return {}
        try:
            return json.loads(self.state_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{self.state_file}: not readable; remove the folder or choose another run name") from error

    def write_state(self, **changes: Any) -> None:
        """Merge changes into `run.json`."""
        write_json(self.state_file, self.read_state() | changes)

    def size(self) -> int:
        """Bytes that the run's files take already."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        shutil.rmtree(self.cache, ignore_errors=True)
        self.before.unlink(missing_ok=True)

    def undo(self, made: bool) -> None:
        """Leave no trace of a run that its input kept from beginning; `made`: the folder did not exist before."""
        self.clean()
        self.state_file.unlink(missing_ok=True)
        if made:
            (self.path / ".lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside, then rename: a reader finds the old file or the new one."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(f"{text}\n", encoding="utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def open_run(path: Path, fingerprint: str) -> Iterator[RunFolder]:
    """Take a run's folder: make it, lock it, and check that what it holds belongs to this run.

    A new run that ends in `BadInput` leaves nothing behind.

    Raises:
        BadInput: the path is a file or not writable, another training holds it, it holds another or a finished run.
    """
    made = not path.exists()
    if not made and not path.is_dir():
        raise BadInput(f"{path}: is a file; give a folder as --run-dir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); choose another --run-dir or its rights"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(
                f"{path}: another training is writing this run; wait for it or choose another name"
            ) from error
        run = RunFolder(path)
        state = run.read_state()
        if state and state.get("fingerprint") != fingerprint:
            raise BadInput(f"{path}: holds a run of another recipe, model or dataset; choose another name or remove it")
        if state.get("state") == FINISHED:
            # what a kill in the run's last moment left behind
            run.clean()
            raise BadInput(f"{path}: this run is finished; choose another name or remove it")
        try:
            run.write_state(fingerprint=fingerprint, state=UNFINISHED)
        except OSError as error:
            raise BadInput(f"{path}: cannot be written ({error.strerror}); choose another --run-dir") from error
        try:
            yield run
        except BadInput:
            if not state:
                run.undo(made)
            raise


def target_problem(target: Path, run_dir: Path) -> str | None:
    """Why a model cannot be put at `target` once it is trained; None when it can.

    What an unfinished run of `run_dir` left at its own target may be replaced; anything else may not.
    """
    try:
        return _problem(target, run_dir)
    except OSError as error:
        return f"{target}: cannot be looked at ({error.strerror}); choose another --model_output_dir"


def _problem(target: Path, run_dir: Path) -> str | None:
    if target.resolve() == run_dir.resolve() or target.resolve() in run_dir.resolve().parents:
        return f"{target}: holds the run folder; give another folder as --model_output_dir"
    if target.is_dir():
        if any(target.iterdir()) and not _is_target_of(run_dir, target):
            return f"{target}: is not empty; give a new or empty folder as --model_output_dir"
    elif target.exists():
        return f"{target}: is a file; give a folder as --model_output_dir"
    if run_dir in target.parents:
        return None
    nearest = next(path for path in (target, *target.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(
        nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        return f"{target}: cannot be written ({nearest}); choose another --model_output_dir"
    return None


def _is_target_of(run_dir: Path, target: Path) -> bool:
    """Whether an earlier start of this run began with this target, and what is there is a model or a part of one."""
    try:
        return RunFolder(run_dir).read_state().get("model_dir") == str(target.resolve())
    except BadInput:
        return False


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_space(path: Path, needed: int, what: str) -> None:
    """Raise `BadInput` where a folder's disk has fewer than `needed` bytes free."""
    disk = shutil.disk_usage(path)
    # a mounted cloud store may not know its size, and says 0
    if disk.total and disk.free < needed:
        raise BadInput(
            f"{path}: {disk.free / 1e9:.1f} GB free, {what} needs about {needed / 1e9:.1f} GB; "
            "free some, lower save_total_limit, or move the runs folder"
        )


def move_into_place(source: Path, target: Path) -> None:
    """Make a finished folder appear at `target` at once, in the place of what an earlier start of the run left there.

    A mount point cannot be replaced: into one the files are copied, and MLmodel, without which no folder is a model,
    goes first and comes last.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if target.exists():
            target.replace(old)
        source.replace(target)
        shutil.rmtree(old, ignore_errors=True)
        return
    except OSError:
        target.mkdir(parents=True, exist_ok=True)
    (target / "MLmodel").unlink(missing_ok=True)
    for item in sorted(source.iterdir(), key=lambda item: item.name == "MLmodel"):
        if item.is_dir():
            shutil.rmtree(target / item.name, ignore_errors=True)
            shutil.copytree(item, target / item.name, copy_function=shutil.copyfile)
        else:
            # contents alone: a mounted cloud store may refuse modes and times
            shutil.copyfile(item, target / item.name)
    shutil.rmtree(source)
