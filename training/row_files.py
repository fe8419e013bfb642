"""Rows of one data file with the line (or row number) that each begins on: JSON lines, CSV, Parquet.

Files are streamed: memory stays the same whatever their size. A row that cannot be read is yielded as a BadRow, so that
the reading goes on; BadInput is raised where it cannot. Used by sources.py (json_file.py reads JSON documents); try
`python training/prepare_data.py check FILE`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from errors import BadInput
from findings import BadRow

#: Longest line or cell that is read, in bytes; a longer one is no conversation but a damaged file.
LONGEST = 16 << 20
LINE_ENDS = ("\n", "\r\n", "")
BOM = b"\xef\xbb\xbf"
#: Rows of a Parquet batch: a few MiB at a time.
PARQUET_BATCH = 500
Row = tuple[int, Any]


class DataFile:
    """What every kind of file has in common; see sources.RowSource."""

    def __init__(self, path: Path, split: str = "") -> None:
        self.path = path
        self.name = str(path)
        self.split = split
        self.size = path.stat().st_size
        self.done = 0

    def place(self, number: int) -> str:
        """`file:line`."""
        return f"{self.name}:{number}"

    def counted_lines(self, file: BinaryIO) -> Iterator[bytes]:
        """The file's lines, counted in `done`."""
        for line in lines_of(file):
            self.done += len(line)
            yield line


def not_utf8(error: UnicodeDecodeError) -> BadRow:
    """The finding for bytes that are no UTF-8."""
    return BadRow("not UTF-8", f"not UTF-8 (byte 0x{error.object[error.start]:02x})", "save the file as UTF-8")


def not_json(error: Exception) -> BadRow:
    """The finding for text that json refuses."""
    if isinstance(error, RecursionError):
        return BadRow("not JSON", "not JSON that can be read (nested too deeply)", "write plain messages")
    if not isinstance(error, json.JSONDecodeError):  # a number with thousands of digits
        return BadRow("not JSON", f"not JSON that can be read ({error})", "write texts")
    rest = error.doc[error.pos :].strip()
    if not rest or error.msg.startswith("Unterminated string"):
        return BadRow(
            "not JSON", f"not JSON: cut off ({error.msg}, column {error.colno})", "complete the row or remove it"
        )
    return BadRow("not JSON", f"not JSON ({error.msg}, column {error.colno})", "correct the row or remove it")


def _reason(text: str) -> Exception:
    """What json.loads says about a text that it refuses."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return error
    raise AssertionError("json.loads and its scanner disagree")


class JsonLinesFile(DataFile):
    """One JSON object a line; blank lines are skipped."""

    @staticmethod
    def fits(head: bytes) -> bool:
        """Whether a file that begins with these bytes holds an object a line, not one object over many lines."""
        first, newline, rest = head.partition(b"\n")
        try:
            row = json.loads(first)
        except (ValueError, RecursionError):
            return False
        return bool(newline and rest.strip() and isinstance(row, dict))

    def rows(self) -> Iterator[Row]:
        """Line number and value."""
        with self.path.open("rb", buffering=1 << 20) as file:
            yield from parse_lines(self.counted_lines(file))


def parse_lines(lines: Iterable[bytes]) -> Iterator[Row]:
    """Line number and value of each line that is not blank."""
    # json.loads without its four layers, which take as long as the parsing of a short row
    loads, scan = json.loads, json.JSONDecoder().scan_once
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST:
            yield (
                number,
                BadRow("too long", f"the line is longer than {LONGEST >> 20} MiB", "put each row on its own line"),
            )
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        try:
            text = line.decode()
            if text.startswith("{"):
                row, end = scan(text, 0)
                if text[end:] not in LINE_ENDS:
                    row = loads(text)
            else:
                row = loads(text)
        except UnicodeDecodeError as error:
            yield number, not_utf8(error)
        except StopIteration:  # the scanner's word for "no value here"
            yield number, not_json(_reason(text))
        except (ValueError, RecursionError) as error:
            if not line.isspace():
                yield number, not_json(error)
        else:
            yield number, row


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Lines; of one longer than LONGEST only the first part, one byte over it, so that no line fills the memory."""
    while line := file.readline(LONGEST + 1):
        yield line
        if len(line) > LONGEST and not line.endswith(b"\n"):
            _skip_line(file)


def _skip_line(file: BinaryIO) -> None:
    """Read to the end of the line without keeping it."""
    while (line := file.readline(LONGEST + 1)) and not line.endswith(b"\n"):
        pass


class CsvFile(DataFile):
    """Comma- (or semicolon-, or tab-) separated values with a header line; a quoted cell may span lines."""

    def rows(self) -> Iterator[Row]:
        """The physical line on which the row begins, and its cells by column name."""
        csv.field_size_limit(LONGEST)
        with self.path.open("rb", buffering=1 << 20) as file:
            lines = self._decoded(file)
            self._undecodable: UnicodeDecodeError | None = None
            header, lines = self._header(lines)
            reader = csv.reader(lines, delimiter=self._delimiter(header), strict=True)
            columns = [name.strip() for name in self._next_row(reader) or []]
            repeated = {name for name in columns if columns.count(name) > 1}
            if repeated or self._undecodable:
                what = f"the column {sorted(repeated)[0]!r} comes twice" if repeated else "not UTF-8"
                raise BadInput(f"{self.name}:1: header: {what}; correct the header line")
            while True:
                number = reader.line_num + 1
                self._undecodable = None
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield (
                        number,
                        BadRow(
                            "not CSV", f"not CSV ({error})", "close the quotes of each cell, and double quotes inside"
                        ),
                    )
                    continue
                if cells is None:
                    return
                if not cells:
                    continue  # a blank line
                if self._undecodable:
                    yield number, not_utf8(self._undecodable)
                elif len(cells) != len(columns):
                    yield (
                        number,
                        BadRow(
                            "not CSV",
                            f"{len(cells)} cells, but the header has {len(columns)}",
                            "quote cells that hold the separator",
                        ),
                    )
                else:
                    yield number, dict(zip(columns, cells, strict=True))

    def _decoded(self, file: BinaryIO) -> Iterator[str]:
        for number, line in enumerate(self.counted_lines(file)):
            try:
                yield (line.removeprefix(BOM) if not number else line).decode()
            except UnicodeDecodeError as error:
                self._undecodable = error
                yield line.decode(errors="replace")

    @staticmethod
    def _header(lines: Iterator[str]) -> tuple[str, Iterator[str]]:
        """The first line, and all lines including it."""
        first = next(lines, "")

        def again() -> Iterator[str]:
            yield first
            yield from lines

        return first, again()

    def _delimiter(self, header: str) -> str:
        if self.path.suffix.lower() == ".tsv":
            return "\t"
        return max(",;\t", key=header.count) if "," not in header else ","

    def _next_row(self, reader: Any) -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error as error:
            raise BadInput(f"{self.name}:1: header: not CSV ({error}); correct the header line") from None


class ParquetFile(DataFile):
    """A Parquet file; it has rows but no lines."""

    def place(self, number: int) -> str:
        """`file:row N`."""
        return f"{self.name}:row {number}"

    def rows(self) -> Iterator[Row]:
        """Row number and cells by column name."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # without a buffer size whole row groups are read ahead, hundreds of MiB in files of one large group
            with pq.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False) as file:
                total, number = file.metadata.num_rows, 0
                for batch in file.iter_batches(PARQUET_BATCH, use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
                    self.done = self.size * number // total
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadInput(f"{self.name}: damaged Parquet file ({reason}); fetch or export it again") from None
