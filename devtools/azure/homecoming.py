"""What a job made, brought home into its run's folder: metrics, report, curve, model, as from a local run.

bring_home(workspace, run, record)

Files come into a folder beside, each whole or not at all, and move when all are there; what came already is not fetched
again. Checkpoints stay where they are.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.azure import storage
from devtools.azure.refusals import told
from devtools.azure.submission import Record
from devtools.azure.workspace import Workspace
from devtools.errors import KitError
from devtools.models import MLMODEL
from devtools.runs import Run

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, ContainerClient

BESIDE = ".home"
#: What a training needs to go on, and nobody afterwards.
LEFT = re.compile(r"(checkpoint-\d+|cache|\.lock)(/|$)")
STATE = "run.json"


def bring_home(workspace: Workspace, run: Run, record: Record) -> None:
    """Fetch the outputs of a completed job.

    Raises:
        KitError: there is no model among them, the storage refuses, or the disk is full.
    """
    beside = run.folder / BESIDE
    with told(f"outputs of {record.job}"):
        container = storage.container(workspace)
        wanted = list(_wanted(container, record))
        if not any(target == Path("model") / MLMODEL for _, target in wanted):
            raise KitError(
                f"job {record.job}: ended without a model; its log says more: phikit azure logs {record.job}"
            )
        try:
            _fetch(container, wanted, beside)
            _move(beside, run.folder)
        except OSError as error:
            raise KitError(f"{run.folder}: cannot be written ({error.strerror}); free the disk, and again") from error


def _wanted(container: ContainerClient, record: Record) -> Iterator[tuple[BlobProperties, Path]]:
    """Each blob, and where it belongs in the run's folder."""
    for output, place in (("run", Path()), ("model", Path("model"))):
        prefix = record.path(output) + "/"
        for blob in container.list_blobs(name_starts_with=prefix):
            inside = blob.name.removeprefix(prefix)
            # (a mount leaves an empty blob for each folder)
            is_folder = (blob.metadata or {}).get("hdi_isfolder") == "true"
            if inside and not is_folder and not LEFT.match(inside) and ".." not in Path(inside).parts:
                yield blob, place / inside


def _fetch(container: ContainerClient, wanted: list[tuple[BlobProperties, Path]], beside: Path) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("bringing it home", total=sum(blob.size for blob, _ in wanted))
        for blob, target in wanted:
            file = beside / target
            if not (file.is_file() and file.stat().st_size == blob.size):
                file.parent.mkdir(parents=True, exist_ok=True)
                part = file.with_name(f".{file.name}.part")
                with part.open("wb") as out:
                    container.download_blob(blob.name).readinto(out)
                part.replace(file)
            progress.advance(task, blob.size)
    print(f"home: {len(wanted)} files", file=sys.stderr, flush=True)


def _move(beside: Path, folder: Path) -> None:
    """Put what came into the run's folder; run.json, which says that all is there, last."""
    for path in sorted(beside.iterdir(), key=lambda path: path.name == STATE):
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    beside.rmdir()
