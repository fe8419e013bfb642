"""Prepared conversations -> train and test files that appear together, whole or not at all.

Used by prepare_data.py. The lines wait in a file without a name, which the system removes however the program ends;
the two parts are written beside their final names and renamed when both are whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors import BadInput

TRAIN, TEST, SUMMARY = "train_data.jsonl", "test_data.jsonl", "summary.json"
#: Free space asked for, as a multiple of the source: the waiting lines and the two parts.
SPACE = 2.2
BLOCK = 1 << 20


def choose_test(count: int, test_size: float, seed: int) -> bytearray:
    """A flag for each of `count` conversations: 1 for the round(count * test_size) that chance puts into the test part.

    The same arguments give the same flags. Each part gets one at least; raises BadInput when there are fewer than two.
    """
    if count < 2:
        raise BadInput(f"{count} good conversations, too few for two parts; give more, or a --test-file")
    flags = bytearray(count)
    for index in random.Random(seed).sample(range(count), min(max(round(count * test_size), 1), count - 1)):
        flags[index] = 1
    return flags


class OutputFolder:
    """The folder that receives both parts and their summary; use it as a context manager.

    Nothing in it changes before `publish`. Raises BadInput when it cannot be written or another preparation holds it.
    """

    def __init__(self, folder: Path, source_bytes: int = 0) -> None:
        """`source_bytes`: size of what will be prepared, to see beforehand whether the disk has room."""
        self.folder = folder
        self._source_bytes = source_bytes
        self._partial = [folder / f".{name}.partial" for name in (TRAIN, TEST, SUMMARY)]

    def __enter__(self) -> OutputFolder:
        with contextlib.ExitStack() as undo:
            self._create(undo)
            try:
                lock = os.open(self.folder, os.O_RDONLY)
                undo.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(f"--out {self.folder}: another preparation is writing there; wait for it") from None
            try:
                self._waiting = undo.enter_context(tempfile.TemporaryFile(dir=self.folder, buffering=BLOCK))
                undo.callback(self._remove_partial)
            except OSError as error:
                raise BadInput(f"--out {self.folder}: cannot be written ({error.strerror}); choose another") from None
            free, needed = shutil.disk_usage(self.folder).free, int(self._source_bytes * SPACE)
            if free < needed:
                raise BadInput(
                    f"--out {self.folder}: {free >> 20:,} MiB free, {needed >> 20:,} MiB needed; free some space"
                )
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._undo.close()

    def _create(self, undo: contextlib.ExitStack) -> None:
        """Make the folder; one that was made here and stays empty is removed again."""
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        for path in reversed(missing):
            undo.callback(_remove_if_empty, path)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise BadInput(f"--out {self.folder}: is a file, or lies under one; name a folder") from None
        except OSError as error:
            raise BadInput(f"--out {self.folder}: cannot be made ({error.strerror}); choose another") from None

    def _remove_partial(self) -> None:
        for path in self._partial:
            path.unlink(missing_ok=True)

    def add(self, line: bytes) -> None:
        """Keep the line of one conversation."""
        self._waiting.write(line)

    def write(self, flags: bytearray) -> dict[str, str]:
        """Write both parts beside their names, in the order of the source, and return the SHA-256 of each."""
        self._waiting.seek(0)
        digests = (hashlib.sha256(), hashlib.sha256())
        train, test = self._partial[:2]
        with train.open("wb", buffering=BLOCK) as train_file, test.open("wb", buffering=BLOCK) as test_file:
            files = (train_file, test_file)
            for line, flag in zip(self._lines(), flags, strict=True):
                files[flag].write(line)
                digests[flag].update(line)
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        return {name: digest.hexdigest() for name, digest in zip((TRAIN, TEST), digests, strict=True)}

    def _lines(self) -> Iterator[bytes]:
        yield from self._waiting

    def publish(self, summary: dict[str, Any]) -> None:
        """Give the files their names; the summary goes first and comes back last, so its digests tell a whole pair."""
        self._partial[2].write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (self.folder / SUMMARY).unlink(missing_ok=True)
        for path, name in zip(self._partial, (TRAIN, TEST, SUMMARY), strict=True):
            path.replace(self.folder / name)


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()
