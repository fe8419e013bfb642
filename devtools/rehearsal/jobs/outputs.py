"""A job's outputs: folders of the machine that it runs on, and the storage behind them, kept alike as a mount would.

outputs = Outputs(rehearsal, plan.outputs, folder)
outputs.fetch()       # what an earlier job left there
outputs.push()        # again and again: what changed since
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.rehearsal.jobs.plan import Place
from devtools.rehearsal.runner import Mount
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

CHECKPOINT = "checkpoint"


class Outputs:
    """The outputs of one job on one node."""

    def __init__(self, rehearsal: Rehearsal, places: Sequence[Place], folder: Path) -> None:
        self._rehearsal = rehearsal
        self._places = places
        self._folder = folder
        self._known: dict[Path, tuple[int, int]] = {}
        self.has_checkpoint = False
        """Whether the storage has one."""

    @property
    def mounts(self) -> list[Mount]:
        """The folders, as the job sees them."""
        return [Mount(self._folder / place.name, place.target) for place in self._places]

    def fetch(self) -> None:
        """Make the folders, with what lies in the storage already."""
        for place in self._places:
            folder = self._folder / place.name
            folder.mkdir(parents=True, exist_ok=True)
            self._rehearsal.blobs.download_all(place.container, f"{place.path}/", folder)
        for path in self._files():
            self._known[path] = _state(path)

    def push(self) -> None:
        """Write what changed to the storage, and remove there what was removed here.

        Raises:
            WireError: the storage may not be written.
        """
        found = self._files()
        changed = [path for path in found if _state(path) != self._known.get(path)]
        gone = self._known.keys() - set(found)
        if (changed or gone) and self._rehearsal.refusals.take("storage-write"):
            raise WireError(
                403,
                "AuthorizationPermissionMismatch",
                "The outputs could not be written to the storage account of the workspace: this request is not "
                "authorized to perform this operation using this permission. (AuthorizationPermissionMismatch)",
            )
        for path in changed:
            try:
                state = _state(path)
                self._rehearsal.blobs.upload(*self._blob(path), path)
            except FileNotFoundError:
                continue  # it went while it was looked at
            self._known[path] = state
            self.has_checkpoint |= CHECKPOINT in path.as_posix()
        for path in gone:
            self._rehearsal.blobs.delete(*self._blob(path))
            del self._known[path]

    def _files(self) -> list[Path]:
        return [
            path
            for place in self._places
            for path in (self._folder / place.name).rglob("*")
            if path.is_file() and not path.is_symlink()
        ]

    def _blob(self, path: Path) -> tuple[str, str]:
        name, *rest = path.relative_to(self._folder).parts
        place = next(place for place in self._places if place.name == name)
        return place.container, "/".join([place.path, *rest])


def _state(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_mtime_ns, told.st_size
