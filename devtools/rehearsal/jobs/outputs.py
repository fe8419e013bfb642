"""A job's outputs: folders of the machine that it runs on, and the storage behind them, kept alike as a mount would.

outputs = Outputs(rehearsal, planned.outputs, planned.artifacts, folder)
outputs.fetch()       # what an earlier job, or the same one on an earlier node, left there
outputs.push()        # again and again: what changed since
outputs.push(True)    # the last time

A mount writes a file when it is closed. Here a large one counts as closed once it rests between two looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.rehearsal.jobs.plan import Place
from devtools.rehearsal.runner import Mount
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

CHECKPOINT = "checkpoint"
#: Bytes of a file that is written at every look, rest it or not.
SMALL = 1024 * 1024
#: Size and time of a file.
State = tuple[int, int]


@dataclass(frozen=True)
class _Kept:
    """One place, and the folder of this machine that stands for it."""

    place: Place
    folder: Path
    restored: bool
    """Whether what lies in the storage is there at the start."""

    @property
    def file(self) -> str | None:
        """The one file's name, where it is one."""
        return self.place.path.rpartition("/")[2] if self.place.is_file else None

    def blob(self, path: Path) -> str:
        """The name of a file's blob."""
        inside = path.relative_to(self.folder).as_posix()
        return self.place.path if self.file else f"{self.place.path}/{inside}"

    def files(self) -> Iterator[Path]:
        """What is there."""
        # (os.walk passes over a folder that goes in the meantime, as old checkpoints do; Path.rglob breaks off)
        found = [self.folder / self.file] if self.file else _walk(self.folder)
        yield from (path for path in found if path.is_file() and not path.is_symlink())

    def checkpoint(self, path: Path) -> Path | None:
        """The checkpoint that a file belongs to: the uppermost folder, or the file, that is called so."""
        parts = path.relative_to(self.folder).parts
        named = [number for number, part in enumerate(parts) if CHECKPOINT in part]
        if CHECKPOINT in self.place.name:
            named = [0]
        return self.folder.joinpath(*parts[: named[0] + 1]) if named else None


class Outputs:
    """The outputs of one job on one node."""

    def __init__(self, rehearsal: Rehearsal, named: Sequence[Place], artifacts: Sequence[Place], folder: Path) -> None:
        """
        Args:
            named: what the job calls its outputs.
            artifacts: folders of its working folder that become artifacts of its run.
            folder: the node's.
        """
        self._rehearsal = rehearsal
        self._kept = [_Kept(place, folder / "outputs" / place.name, True) for place in named]
        self.mounts = [Mount(kept.folder, _folder_of(kept.place)) for kept in self._kept]
        """The named ones, as the job sees them."""
        self._kept += [_Kept(place, folder / "wd" / place.name, False) for place in artifacts]
        self._known: dict[Path, State] = {}
        self._seen: dict[Path, State] = {}
        self._restored: set[Path] = set()
        self.has_checkpoint = False
        """Whether the storage has a whole one that was not there when the job came to this node."""

    def fetch(self) -> None:
        """Make the folders, with what lies in the storage already."""
        for kept in self._kept:
            kept.folder.mkdir(parents=True, exist_ok=True)
            place = kept.place
            if kept.file and self._rehearsal.blobs.exists(place.container, place.path):
                (kept.folder / kept.file).write_bytes(self._rehearsal.blobs.download(place.container, place.path))
            elif kept.restored and not kept.file:
                self._rehearsal.blobs.download_all(place.container, f"{place.path}/", kept.folder)
        self._known = {path: state for path, _, state in self._look()}
        self._restored = self._checkpoints(self._known)

    def push(self, last: bool = False) -> None:
        """Write what changed to the storage, and remove there what was removed here; `last`: what does not rest, too.

        Raises:
            WireError: the storage may not be written.
        """
        found = {path: (kept, state) for path, kept, state in self._look()}
        changed = {path: told for path, told in found.items() if told[1] != self._known.get(path)}
        due = {
            path: told
            for path, told in changed.items()
            if last or told[1][0] <= SMALL or told[1] == self._seen.get(path)
        }
        gone = self._known.keys() - found.keys()
        if (due or gone) and self._rehearsal.refusals.take("storage-write"):
            raise WireError(
                403,
                "AuthorizationPermissionMismatch",
                "The outputs could not be written to the storage account of the workspace: this request is not "
                "authorized to perform this operation using this permission. (AuthorizationPermissionMismatch)",
            )
        for path, (kept, state) in due.items():
            try:
                self._rehearsal.blobs.upload(kept.place.container, kept.blob(path), path)
            except FileNotFoundError:
                continue  # it went while it was looked at
            self._known[path] = state
        for path in gone:
            kept = self._of(path)
            self._rehearsal.blobs.delete(kept.place.container, kept.blob(path))
            del self._known[path]
        self._seen = {path: state for path, (_, state) in found.items()}
        whole = self._checkpoints(self._known) - self._checkpoints(changed)
        self.has_checkpoint |= bool(whole - self._restored)

    def _of(self, path: Path) -> _Kept:
        return next(kept for kept in self._kept if path.is_relative_to(kept.folder))

    def _checkpoints(self, paths: Iterable[Path]) -> set[Path]:
        return {found for path in paths if (found := self._of(path).checkpoint(path))}

    def _look(self) -> list[tuple[Path, _Kept, State]]:
        found = []
        for kept in self._kept:
            for path in kept.files():
                try:
                    told = path.stat()
                except FileNotFoundError:
                    continue  # it went while it was looked at
                found.append((path, kept, (told.st_size, told.st_mtime_ns)))
        return found


def _walk(folder: Path) -> Iterator[Path]:
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name) for name in names)


def _folder_of(place: Place) -> str:
    return place.target.rpartition("/")[0] if place.is_file else place.target
