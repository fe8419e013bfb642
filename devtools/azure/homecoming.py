"""What a job made, brought home into its run's folder: metrics, report, curve, model, as from a local run.

bring_home(workspace, run, record)

Files come into a folder beside and move when all are there. What came already is not fetched again, and of a file that
came in part, only the rest. Checkpoints stay where they are.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.azure import registration, storage
from devtools.azure.progress import say
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
#: Files that are fetched at once.
AT_ONCE = 4


def bring_home(workspace: Workspace, run: Run, record: Record) -> None:
    """Fetch the outputs of a completed job, and note in the record which model that was.

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
            # (before it is a model that can be registered)
            replace(record, model=registration.digest_of(beside / "model")).write(run)
            _move(beside, run.folder)
        except OSError as error:
            raise KitError(f"{run.folder}: cannot be written ({error.strerror}); free the disk, and again") from error


def _wanted(container: ContainerClient, record: Record) -> Iterator[tuple[BlobProperties, Path]]:
    """Each blob, and where it belongs in the run's folder."""
    for output, place in (("run", Path()), ("model", Path("model"))):
        prefix = record.path(output) + "/"
        # (without being asked for it, the service leaves out what says that a blob is a folder)
        blobs = list(container.list_blobs(name_starts_with=prefix, include=["metadata"]))
        folders = {blob.name[:at] for blob in blobs for at, letter in enumerate(blob.name) if letter == "/"}
        for blob in blobs:
            inside = blob.name.removeprefix(prefix)
            if inside and not _is_folder(blob, folders) and not LEFT.match(inside) and ".." not in Path(inside).parts:
                yield blob, place / inside


def _is_folder(blob: BlobProperties, folders: set[str]) -> bool:
    """Whether a blob stands for a folder: a mount or an account with a hierarchy leaves an empty one for each.

    Not all of them say so in their metadata; but where others lie below it, it can be no file.
    """
    said = (blob.metadata or {}).get("hdi_isfolder") == "true" or blob.name.endswith("/")
    return said or (blob.size == 0 and blob.name in folders)


def _fetch(container: ContainerClient, wanted: list[tuple[BlobProperties, Path]], beside: Path) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    stopped = threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("bringing it home", total=sum(blob.size for blob, _ in wanted))

        def came(size: int) -> None:
            progress.advance(task, size)

        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            come = [pool.submit(_fetch_one, container, blob, beside / target, came, stopped) for blob, target in wanted]
            for one in come:
                one.result()
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
    say(f"home: {len(wanted)} files")


def _fetch_one(
    container: ContainerClient, blob: BlobProperties, file: Path, came: Callable[[int], None], stopped: threading.Event
) -> None:
    """Fetch what is missing of one file, unless somebody stops all of them."""
    if file.is_file() and file.stat().st_size == blob.size:
        came(blob.size)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    with part.open("ab") as out:
        if out.tell() > blob.size:
            out.truncate(0)
        came(out.tell())
        if out.tell() < blob.size:
            for piece in container.download_blob(blob.name, offset=out.tell()).chunks():
                out.write(piece)
                came(len(piece))
                if stopped.is_set():
                    return
    part.replace(file)


def _move(beside: Path, folder: Path) -> None:
    """Put what came into the run's folder; run.json, which says that all is there, last."""
    for path in sorted(beside.iterdir(), key=lambda path: path.name == STATE):
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    beside.rmdir()
