"""The storage initializer: brings a deployment's model and code from the storage to where its containers find them.

mounts = files.bring(rehearsal, plan, folder, journal)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from devtools.rehearsal.endpoints import wording
from devtools.rehearsal.endpoints.journal import DONE, GOING_ON, Journal
from devtools.rehearsal.endpoints.plan import Folder, Plan
from devtools.rehearsal.runner import Mount
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Written last: what is in the folder is whole.
WHOLE = ".whole"


def bring(rehearsal: Rehearsal, plan: Plan, folder: Path, journal: Journal) -> list[Mount]:
    """Download what the plan names below `folder`, unless it is there, and say how containers see it.

    Raises:
        WireError: the storage has nothing there.
    """
    journal.step("ModelDownload", GOING_ON)
    journal.event("Downloading", "Start downloading models")
    wanted = [(name, part) for name, part in (("model", plan.model), ("code", plan.code)) if part]
    if not (folder / WHOLE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, part in wanted:
            _download(rehearsal, part, folder / name, journal)
        (folder / WHOLE).touch()
    journal.step("ModelDownload", DONE)
    journal.event("Downloaded", "Models are downloaded successfully or no model need to download")
    mounts = []
    for name, part in wanted:
        if name == "model":
            mounts.append(Mount(folder / name, part.target, read_only=True))
        else:
            # code lies beside the models: the folder itself is mounted, not the one it is in
            mounts.append(Mount(folder / name / part.name, f"{part.target}/{part.name}", read_only=True))
    return mounts


def _download(rehearsal: Rehearsal, part: Folder, target: Path, journal: Journal) -> None:
    where = f"{part.container}/{part.path}"
    target.mkdir(parents=True)
    try:
        if part.path and rehearsal.blobs.exists(part.container, part.path):
            count = 1
            (target / part.name).write_bytes(rehearsal.blobs.download(part.container, part.path))
        else:
            prefix = f"{part.path}/" if part.path else ""
            count = rehearsal.blobs.download_all(part.container, prefix, target / part.name)
    except (httpx.HTTPError, OSError) as error:
        journal.fetched(f"{where}: {error}")
        raise _refused(journal, where) from error
    journal.fetched(f"{where}: {count} files downloaded to {part.target}")
    if not count:
        raise _refused(journal, where)


def _refused(journal: Journal, where: str) -> WireError:
    journal.event(
        "DownloadFailed", "Model download failed. Please check storage-initializer log for detail.", warning=True
    )
    return wording.failed("BadArgument", f"Unable to download user model or code from {where}.", "error-badargument")
