"""Rows of any known layout -> checked conversations; and the trainer's way into a prepared pair of files.

    python training/prepare_data.py check data       runs these checks over data/train_data.jsonl and test_data.jsonl

Every conversation is good by itself (checks.py), none is longer than the limit, none comes twice, and none is in both
the train and the test part.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from checks import Conversation, TokenCount, judge_rows
from errors import BadInput
from findings import BadRow, Findings
from sources import RowSource, open_file

if TYPE_CHECKING:
    from datasets import Dataset

#: Arrow record batch of `load_pair`, in rows: large enough to be fast, small enough to cost a few MiB.
BATCH = 1000


class Checker:
    """Reads sources in turn and yields the good conversations; the bad rows gather in `findings`.

    Memory: about 200 bytes a conversation, for the digests that tell duplicates; rows are not kept.
    """

    def __init__(
        self,
        max_tokens: int = 0,
        count_tokens: TokenCount | None = None,
        columns: dict[str, str] | None = None,
    ) -> None:
        """`max_tokens` 0: no limit; `count_tokens` None: estimated; `columns`: see layouts.find_layout."""
        self.findings = Findings()
        self.rows_read = 0
        self.max_tokens = max_tokens
        self.count_tokens = count_tokens
        self.columns = columns
        self._seen: dict[bytes, int] = {}
        self._sources: list[RowSource] = []

    def conversations(self, source: RowSource) -> Iterator[Conversation]:
        """The good conversations of one source, in order; one that an earlier source held is a finding."""
        self._sources.append(source)
        index = len(self._sources) - 1
        before = self.rows_read
        try:
            for number, judged in judge_rows(source.rows(), self.columns, self.count_tokens):
                self.rows_read += 1
                if isinstance(judged, BadRow):
                    problem = judged
                else:
                    place = index << 40 | number
                    first = self._seen.setdefault(judged.digest, place)
                    if first != place:
                        problem = self._repeated(first, source)
                    elif self.max_tokens and judged.tokens > self.max_tokens:
                        problem = self._too_long(judged.tokens)
                    else:
                        yield judged
                        continue
                self.findings.add_row(source.place(number), problem)
        except BadInput as error:
            for line in error.findings:
                self.findings.add_file(line)
            return
        except OSError as error:
            self.findings.add_file(f"{source.name}: cannot be read ({error.strerror or error}); check the file")
            return
        if self.rows_read == before:
            self.findings.add_file(f"{source.name}: holds no rows; give a file with at least one conversation")

    def _repeated(self, first: int, source: RowSource) -> BadRow:
        """The finding for a conversation of `source` that came before, at the packed place `first`."""
        earlier = self._sources[first >> 40]
        where = f"the same conversation as {earlier.place(first & (1 << 40) - 1)}"
        if source.split != earlier.split:
            return BadRow("in train and test", f"{where}, so train and test overlap", "remove one")
        return BadRow("duplicate", where, "remove one")

    def _too_long(self, tokens: int) -> BadRow:
        about = "" if self.count_tokens else "about "
        return BadRow(
            "too long",
            f"{about}{tokens:,} tokens, the limit is {self.max_tokens:,}" + (" (estimated)" if about else ""),
            "shorten it or raise --max-tokens",
        )


def read_conversations(path: Path) -> Iterator[dict[str, list[dict[str, str]]]]:
    """The rows {"messages": [...]} of a data file, in order, in constant memory.

    Raises BadInput after the last row, with every finding, when there are any.
    """
    checker = Checker()
    for conversation in checker.conversations(open_file(path)):
        yield json.loads(conversation.line)
    _raise(checker.findings)


def load_pair(train_file: Path, eval_file: Path, cache_dir: Path) -> tuple[Dataset, Dataset]:
    """The train and the evaluation file as memory-mapped datasets with one column, `messages`.

    Both are read whole and checked as `prepare_data.py check` does, except for their length; Arrow files are left in
    `cache_dir`, whole or not at all. Raises BadInput with the findings of both files; nothing is left behind then.
    """
    from datasets import Dataset

    checker = Checker()
    cache_dir.mkdir(parents=True, exist_ok=True)
    pairs = [(train_file, "train"), (eval_file, "test")]
    sources: list[RowSource] = []
    for path, split in pairs:
        try:
            sources.append(open_file(path, split))
        except BadInput as error:
            for line in error.findings:
                checker.findings.add_file(line)
    partial = [cache_dir / f".{source.split}.arrow.partial" for source in sources]
    try:
        for source, path in zip(sources, partial, strict=True):
            _write_arrow(path, checker.conversations(source))
        _raise(checker.findings)
        whole = [
            path.replace(cache_dir / f"{source.split}.arrow") for source, path in zip(sources, partial, strict=True)
        ]
    finally:
        for path in partial:
            with contextlib.suppress(OSError):
                path.unlink()
    train, test = (Dataset.from_file(str(path)) for path in whole)
    return train, test


def _raise(findings: Findings) -> None:
    if lines := findings.lines():
        raise BadInput(lines)


def _write_arrow(path: Path, conversations: Iterable[Conversation]) -> None:
    """Conversations as an Arrow stream, the format that Dataset.from_file maps into memory."""
    import pyarrow as pa

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([("messages", pa.list_(turn))])
    rest = iter(conversations)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while batch := list(islice(rest, BATCH)):
            column = [json.loads(conversation.line)["messages"] for conversation in batch]
            writer.write_batch(pa.record_batch([pa.array(column, schema.field(0).type)], schema))
