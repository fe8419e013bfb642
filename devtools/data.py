"""Datasets on this machine: what `--data` means, and training/prepare_data.py run as a task.

phikit data prepare chats.jsonl --out data/chats
phikit data check data/chats
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools.backend import Task
from devtools.connections import connect
from devtools.errors import BadInput
from devtools.settings import Settings

TRAIN, TEST, SUMMARY = "train_data.jsonl", "test_data.jsonl", "summary.json"
SAMPLE = "sample"
#: Options of prepare_data.py whose value is a folder to write to.
WRITES = ("--out",)
#: A dataset of the hub, where no such file exists: owner/name, or the short name that prepare_data.py knows.
HUB_NAME = re.compile(r"ultrachat|[A-Za-z0-9][\w.-]*/[\w.-]+")
#: Modules that prepare_data.py imports beyond the standard library.
PACKAGES = ("pyarrow", "datasets", "rich")


@dataclass(frozen=True)
class Dataset:
    """A prepared folder, and the source that has to be prepared into it first (None: it is all there)."""

    folder: Path
    source: str | None

    @property
    def train_file(self) -> Path:
        """The conversations to train on."""
        return self.folder / TRAIN

    @property
    def eval_file(self) -> Path:
        """The held-out conversations."""
        return self.folder / TEST


def find(data: str | None, data_folder: Path, on_bad: str) -> Dataset:
    """What `--data` means: a prepared folder, or a source and the folder below `data_folder` that it goes into.

    None means `data_folder` itself, with the sample if it holds nothing yet. Raises BadInput for half a folder.
    """
    folder = Path(data).expanduser().absolute() if data else data_folder
    found = [name for name in (TRAIN, TEST) if (folder / name).is_file()]
    if len(found) == 2:
        return Dataset(folder, None)
    if found:
        missing = TEST if found == [TRAIN] else TRAIN
        raise BadInput(
            f"{folder}: holds {found[0]} but no {missing}; add it, or prepare the file: --data {folder / found[0]}"
        )
    if folder == data_folder:
        return Dataset(folder, SAMPLE)
    into = _folder_for(data, folder, data_folder)
    # a download is not repeated; local files are read anew each time, because they may have changed
    if is_hub_name(data) and _is_whole(into, on_bad):
        return Dataset(into, None)
    return Dataset(into, data)


def is_hub_name(source: str) -> bool:
    """Whether preparing this source asks the hub."""
    return bool(HUB_NAME.fullmatch(source)) and not Path(source).expanduser().exists()


def preparation(arguments: Sequence[str], code: Path, settings: Settings, verb: str) -> Task:
    """The task that runs `prepare_data.py VERB ARGUMENTS...` in the caller's folder.

    Every argument (or `--option=value`) that names an existing file or folder can be read by it, `--out` be written.
    """
    reads: list[Path] = []
    writes: list[Path] = []
    hub = False
    option = ""
    for argument in arguments:
        value = argument
        if argument.startswith("-"):
            option, _, value = argument.partition("=")
        path = Path(value).absolute()
        if option in WRITES:
            if value:
                writes.append(path)
        elif value and path.exists():
            reads.append(path)
        else:
            hub = hub or bool(HUB_NAME.fullmatch(value)) or (option == "--tokenizer" and bool(value))
        if not argument.startswith("-") or "=" in argument:
            option = ""
    if verb == "prepare" and not any(argument.partition("=")[0] in WRITES for argument in arguments):
        writes.append(Path("data").absolute())
    connections = connect(settings, hub=hub)
    return Task(
        name=f"data-{verb}",
        command=f'python "$PHIKIT_CODE/prepare_data.py" {shlex.join([verb, *arguments])}',
        code=code,
        workdir=Path.cwd(),
        reads=tuple(dict.fromkeys(reads)),
        writes=tuple(dict.fromkeys([*writes, *connections.writes])),
        environment=connections.environment,
        network=connections.network,
        packages=PACKAGES,
        grace=10,
    )


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def near(path: Path) -> str:
    """A path as people like to read it: relative when it lies below the current folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _folder_for(source: str, path: Path, data_folder: Path) -> Path:
    stem = path.stem if path.is_file() else path.name if path.exists() else source
    slug = re.sub(r"[^a-z0-9._]+", "-", stem.lower()).strip("-.") or "dataset"
    folder = data_folder / slug
    sources = _sources(folder)
    if not folder.exists() or source in sources or any(Path(name).absolute().is_relative_to(path) for name in sources):
        return folder
    # the name is taken by another source (or is the source itself)
    return data_folder / f"{slug}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def _summary(folder: Path) -> dict:
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _sources(folder: Path) -> list[str]:
    return [str(name).partition("[")[0] for name in _summary(folder).get("sources", [])]


def _is_whole(folder: Path, on_bad: str) -> bool:
    whole = all((folder / name).is_file() for name in (TRAIN, TEST, SUMMARY))
    return whole and (on_bad == "drop" or not _summary(folder).get("dropped_rows"))
