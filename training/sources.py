"""What `prepare SOURCE` may name, turned into row sources: the sample, files, folders, or a hub dataset.

python training/prepare_data.py prepare sample
python training/prepare_data.py prepare chats.jsonl more.csv
python training/prepare_data.py prepare HuggingFaceH4/ultrachat_200k --split 'train_sft[:1%]'
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from errors import BadInput
from json_file import JsonFile
from row_files import CsvFile, JsonLinesFile, ParquetFile

SAMPLE = Path(__file__).parent / "sample"
ULTRACHAT = "HuggingFaceH4/ultrachat_200k"
EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
#: JSON files that lie beside datasets and hold none.
NO_DATA = ("summary.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
TRAIN_NAMES = re.compile(r"train", re.IGNORECASE)
TEST_NAMES = re.compile(r"test|held[-_]?out|eval", re.IGNORECASE)
VALIDATION_NAMES = re.compile(r"valid|dev", re.IGNORECASE)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class RowSource(Protocol):
    """Rows with their place, one file or one hub split."""

    name: str
    """As findings show it."""
    split: str
    """`train`, `test`, or empty."""
    size: int
    """How much there is, in bytes (of a hub dataset: in rows)."""
    done: int
    """How much of `size` has been read."""

    def rows(self) -> Iterator[tuple[int, Any]]:
        """Line or row number from 1, and the row: a dict, or a BadRow, or another value that is no row.

        Raises BadInput when the rest cannot be read.
        """

    def place(self, number: int) -> str:
        """`name:line`, or `name:row N` where there are no lines."""


def open_file(path: Path, split: str = "") -> RowSource:
    """The row source for a file, told by its first bytes and then by its extension.

    Raises BadInput when it is missing, empty, binary or of no known kind.
    """
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; name the file in it")
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except FileNotFoundError:
        hint = "" if path.suffix else " (a dataset on the hub is owner/name)"
        raise BadInput(f"{path}: no such file; check the name{hint}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from None
    if head.startswith(b"PAR1"):
        return ParquetFile(path, split)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text and len(head) < 1 << 16:
        raise BadInput(f"{path}: is empty; give a file with at least one conversation")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{path}: is UTF-16, not UTF-8; save it as UTF-8")
    if head.startswith((b"\x1f\x8b", b"PK\3\4", b"(\xb5/\xfd", b"BZh", b"\xfd7zXZ")):
        raise BadInput(f"{path}: is compressed; unpack it first")
    if b"\0" in head:
        raise BadInput(f"{path}: is a binary file; give JSONL, JSON, CSV or Parquet")
    extension = path.suffix.lower()
    if extension == ".parquet":
        raise BadInput(f"{path}: is no Parquet file (its first bytes are not PAR1); fetch or export it again")
    if extension in (".csv", ".tsv"):
        return CsvFile(path, split)
    if extension in (".jsonl", ".ndjson"):
        return JsonFile(path, split) if text.startswith(b"[") else JsonLinesFile(path, split)
    if text.startswith((b"[", b"{")):
        return JsonLinesFile(path, split) if JsonLinesFile.fits(text) else JsonFile(path, split)
    if extension == ".json":
        return JsonFile(path, split)
    raise BadInput(f"{path}: neither JSON nor Parquet by its content; name CSV files .csv, and JSON lines .jsonl")


def open_folder(folder: Path) -> tuple[list[RowSource], list[Path]]:
    """The data files of a folder, and the files that its own train/test split leaves unused.

    Where there are files named train* as well as test* (or held_out*, eval*, validation*), that split is kept.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS
        and path.name not in NO_DATA
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not files:
        raise BadInput(f"{folder}: holds no data; put {', '.join(EXTENSIONS)} files there")
    train = [path for path in files if TRAIN_NAMES.match(path.name)]
    test = [path for path in files if TEST_NAMES.match(path.name)] or [
        path for path in files if VALIDATION_NAMES.match(path.name)
    ]
    if not (train and test):
        return _open_all([(path, "") for path in files]), []
    parts = [(path, "train") for path in train] + [(path, "test") for path in test]
    return _open_all(parts), [path for path in files if path not in train and path not in test]


def open_paths(names: Sequence[str]) -> tuple[list[RowSource], list[Path]]:
    """Files and folders in the order given, for checking: a file's name tells which side of a split it is on."""
    sources: list[RowSource] = []
    unused: list[Path] = []
    findings: list[str] = []
    paths = [SAMPLE if name == "sample" else Path(name) for name in names]
    for path in paths:
        try:
            if path.is_dir():
                inside, left = open_folder(path)
                sources += inside
                unused += left
            else:
                split = "train" if TRAIN_NAMES.match(path.name) else "test" if TEST_NAMES.match(path.name) else ""
                sources.append(open_file(path, split if len(paths) > 1 else ""))
        except BadInput as error:
            findings += error.findings
    if findings:
        raise BadInput(findings)
    return sources, unused


def _open_all(parts: Sequence[tuple[Path, str]]) -> list[RowSource]:
    """Every file, or BadInput with all that cannot be opened."""
    sources: list[RowSource] = []
    findings: list[str] = []
    for path, split in parts:
        try:
            sources.append(open_file(path, split))
        except BadInput as error:
            findings += error.findings
    if findings:
        raise BadInput(findings)
    return sources


def open_source(
    names: Sequence[str], test_file: str | None = None, config: str | None = None, split: str | None = None
) -> tuple[list[RowSource], list[Path]]:
    """The row sources of `prepare SOURCE...`, and the files left unused; raises BadInput with every finding.

    `test_file` makes the rest the train part; `config` and `split` are a hub dataset's.
    """
    local = [name for name in names if name == "sample" or Path(name).exists() or not _is_hub_name(name)]
    if local and (config or split):
        raise BadInput(f"--config and --split are for hub datasets, {local[0]} is none; leave them out")
    if not local:
        if len(names) > 1:
            raise BadInput("one hub dataset at a time; prepare each into its own folder")
        if test_file:
            raise BadInput("--test-file goes with local files; a hub dataset is split by --test-size")
        from hub import open_hub

        if names[0] in ("ultrachat", ULTRACHAT):
            return [open_hub(ULTRACHAT, config or "default", split or "train_sft[:1%]")], []
        return [open_hub(names[0], config, split)], []
    paths = [SAMPLE if name == "sample" else Path(name) for name in names]
    if len(paths) == 1 and paths[0].is_dir() and not test_file:
        return open_folder(paths[0])
    side = "train" if test_file else ""
    parts: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            inside = [Path(source.name) for source in open_folder(path)[0]]
            parts += [(file, side) for file in inside]
        else:
            parts.append((path, side))
    return _open_all(parts + ([(Path(test_file), "test")] if test_file else [])), []


def _is_hub_name(name: str) -> bool:
    """`owner/name`, unless it ends like a data file; `ultrachat` is short for the tutorial's dataset."""
    if name == "ultrachat":
        return True
    return bool(HUB_NAME.fullmatch(name)) and Path(name).suffix.lower() not in EXTENSIONS and not name.startswith(".")
