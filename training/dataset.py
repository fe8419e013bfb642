"""Rows of any known layout -> checked conversations; and the trainer's way into a prepared pair of files.

    python training/prepare_data.py check data       runs these checks over data/train_data.jsonl and test_data.jsonl

Every conversation is optional system text, then user and assistant in turns, ending with the assistant; no content is
empty; none is longer than the limit; none comes twice, and none is in both the train and the test part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from json.encoder import encode_basestring
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from errors import BadInput
from findings import BadRow, Findings
from layouts import Turn, find_layout, kind_of
from sources import RowSource, open_file
from token_count import estimated_tokens

if TYPE_CHECKING:
    from datasets import Dataset

#: Counts the tokens of one conversation.
TokenCount = Callable[[list[Turn]], int]
ROLES = ("system", "user", "assistant")
#: What stands before the content of each role in a prepared line.
OPENING = {role: f'{{"role": "{role}", "content": ' for role in ROLES}
#: ASCII's white space as str.split sees it, each turned into a blank.
BLANKS = bytes.maketrans(b"\t\n\v\f\r\x1c\x1d\x1e\x1f", b" " * 9)
#: Arrow record batch of `load_pair`, in rows: large enough to be fast, small enough to cost a few MiB.
BATCH = 1000


class Conversation(NamedTuple):
    """One checked conversation."""

    turns: list[Turn]
    split: str
    """`train`, `test`, or empty where the source has no split of its own."""
    layout: str
    tokens: int

    def line(self) -> bytes:
        """The line of a prepared file: the bytes of json.dumps(..., ensure_ascii=False), in a third of the time."""
        turns = "}, ".join([OPENING[role] + encode_basestring(content) for role, content in self.turns])
        return f'{{"messages": [{turns}}}]}}\n'.encode()


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
        """`max_tokens` 0: no limit. `count_tokens` None: estimated. `columns`: see layouts.find_layout."""
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
        converters: dict[tuple[str, ...], Any] = {}
        before = self.rows_read
        try:
            for number, row in source.rows():
                self.rows_read += 1
                try:
                    if type(row) is not dict:
                        raise row if isinstance(row, BadRow) else _not_an_object(row)
                    keys = tuple(row)
                    if (found := converters.get(keys)) is None:
                        found = find_layout(keys, self.columns)
                        if len(converters) < 1000:  # rows whose keys are data would fill the memory
                            converters[keys] = found
                    turns = check_turns(found[1](row))
                    content_bytes = self._first_time(turns, index, number)
                    if self.count_tokens:
                        tokens = self.count_tokens(turns)
                    else:
                        tokens = estimated_tokens(content_bytes, len(turns))
                    if self.max_tokens and tokens > self.max_tokens:
                        raise self._too_long(tokens)
                except BadRow as problem:
                    self.findings.add_row(source.place(number), problem)
                    continue
                yield Conversation(turns, source.split, found[0], tokens)
        except BadInput as error:
            for line in error.findings:
                self.findings.add_file(line)
            return
        except OSError as error:
            self.findings.add_file(f"{source.name}: cannot be read ({error.strerror or error}); check the file")
            return
        if self.rows_read == before:
            self.findings.add_file(f"{source.name}: holds no rows; give a file with at least one conversation")

    def _first_time(self, turns: list[Turn], index: int, number: int) -> int:
        """Raise BadRow if the conversation came before, whatever its white space; return its size in bytes."""
        try:
            text = identity(turns)
        except UnicodeEncodeError:
            raise BadRow(
                "not UTF-8", "the text holds half of a surrogate pair (\\ud800 to \\udfff)", "write the whole character"
            ) from None
        place = index << 40 | number
        first = self._seen.setdefault(blake2b(text, digest_size=16).digest(), place)
        if first != place:
            source = self._sources[first >> 40]
            where = source.place(first & (1 << 40) - 1)
            if source.split != self._sources[index].split:
                raise BadRow(
                    "in train and test", f"the same conversation as {where}, so train and test overlap", "remove one"
                )
            raise BadRow("duplicate", f"the same conversation as {where}", "remove one")
        return len(text)

    def _too_long(self, tokens: int) -> BadRow:
        about = "" if self.count_tokens else "about "
        return BadRow(
            "too long",
            f"{about}{tokens:,} tokens, the limit is {self.max_tokens:,}" + (" (estimated)" if about else ""),
            "shorten it or raise --max-tokens",
        )


def _not_an_object(row: Any) -> BadRow:
    return BadRow("not an object", f"the row is {kind_of(row)}", 'write an object such as {"messages": [...]}')


def identity(turns: list[Turn]) -> bytes:
    """The same bytes for the same conversation, however its white space is laid out (UTF-8, each run one blank).

    Raises UnicodeEncodeError for half a surrogate pair.
    """
    text = "".join([f" \0{role} {content}" for role, content in turns]) + " "
    if not text.isascii():
        return f" {' '.join(text.split())} ".encode()
    # the same for ASCII alone, four times as fast: str.split would make an object of every word
    data = text.encode().translate(BLANKS)
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data


def check_turns(turns: list[Turn]) -> list[Turn]:
    """The turns, without an empty system text; raises BadRow for the first thing that is wrong with them."""
    if turns and turns[0][0] == "system" and (turns[0][1] is None or not str(turns[0][1]).strip()):
        turns = turns[1:]
    for _, content in turns:
        if type(content) is not str or not content or content.isspace():
            break
    else:
        roles = [role for role, _ in turns]
        spoken = roles[1:] if roles and roles[0] == "system" else roles
        if spoken and spoken == ["user", "assistant"] * (len(spoken) // 2):
            return turns
    raise _what_is_wrong(turns)


def _what_is_wrong(turns: list[Turn]) -> BadRow:
    """The first problem of turns that check_turns refuses."""
    if not turns:
        return BadRow("no assistant turn", "there are no turns", "give a question and an answer")
    expected = "user"
    for number, (role, content) in enumerate(turns, 1):
        if role not in ROLES:
            return BadRow("unknown role", f"turn {number} has the role {role!r}", f"use {', '.join(ROLES)}")
        if content is None:
            return BadRow("missing content", f"turn {number} ({role}) has no content", "fill it in")
        if not isinstance(content, str):
            return BadRow(
                "content not text", f"turn {number} ({role}): content is {kind_of(content)}", "write it as one text"
            )
        if not content.strip():
            return BadRow("empty content", f"turn {number} ({role}) is empty", "fill it in")
        if role == "system":
            if number > 1:
                return BadRow("role order", f"turn {number} is system", "move the system text to the front")
        elif role != expected:
            return BadRow(
                "role order",
                f"turn {number} is {role} where {expected} was expected",
                "let user and assistant alternate, user first",
            )
        else:
            expected = "assistant" if role == "user" else "user"
    if not any(role == "assistant" for role, _ in turns):
        return BadRow("no assistant turn", "there is no assistant turn", "add the answer")
    return BadRow("role order", "the last turn is user, not assistant", "add the answer or remove the turn")


def read_conversations(path: Path) -> Iterator[dict[str, list[dict[str, str]]]]:
    """The rows {"messages": [...]} of a data file, in order, in constant memory.

    Raises BadInput after the last row, with every finding, when there are any.
    """
    checker = Checker()
    for conversation in checker.conversations(open_file(path)):
        yield {"messages": _messages(conversation)}
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


def _messages(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in conversation.turns]


def _write_arrow(path: Path, conversations: Iterable[Conversation]) -> None:
    """Conversations as an Arrow stream, the format that Dataset.from_file maps into memory."""
    import pyarrow as pa

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([("messages", pa.list_(turn))])
    rest = iter(conversations)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while batch := list(islice(rest, BATCH)):
            column: Sequence[Any] = [_messages(conversation) for conversation in batch]
            writer.write_batch(pa.record_batch([pa.array(column, schema.field(0).type)], schema))
