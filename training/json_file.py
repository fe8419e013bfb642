"""Rows of a JSON document that is one array, one object with a list of rows inside, or one single row.

The document is parsed a row at a time, so that an array of any length needs the memory of its longest row. Used by
sources.py; try `python training/prepare_data.py check FILE.json`.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from errors import BadInput
from findings import BadRow
from row_files import LONGEST, DataFile, Row, not_json

CHUNK = 1 << 18
BLANK = " \t\r\n"
#: A value may look finished at the end of what has been read, yet go on: a number, a literal, an escape.
MARGIN = 16


class _CutOff(Exception):
    """The text ends where a value or a mark should come."""


class JsonFile(DataFile):
    """One JSON document; each row's place is the line on which it begins."""

    def rows(self) -> Iterator[Row]:
        """Line number and value. A document cut off at its end is a bad last row; one broken before is BadInput."""
        with self.path.open("rb") as file:
            self._file: BinaryIO = file
            self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
            self._text, self._at, self._line, self._ended = "", 0, 1, False
            try:
                yield from self._array() if self._peek() == "[" else self._object()
                if self._peek(end_ok=True):
                    raise BadInput(
                        f"{self.name}:{self._line}: more text after the JSON document; "
                        "write one array, or JSON lines (.jsonl)"
                    )
            except _CutOff:
                yield (
                    self._line,
                    BadRow("not JSON", "not JSON: the file is cut off here", "complete the file or save it again"),
                )
            except UnicodeDecodeError as error:
                line = self._line + self._text.count("\n", self._at) + error.object[: error.start].count(b"\n")
                raise BadInput(
                    f"{self.name}:{line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"
                ) from None

    def _array(self) -> Iterator[Row]:
        """The values of the array that begins here."""
        self._skip("[")
        if self._peek() == "]":
            self._skip("]")
            return
        while True:
            self._peek()
            line = self._line
            yield line, self._value()
            if self._peek() == "]":
                self._skip("]")
                return
            self._skip(",")

    def _object(self) -> Iterator[Row]:
        """The rows in the object that begins here: those of its list of objects, or else the object itself."""
        line, fields, rows = self._line, {}, 0
        self._skip("{")
        while self._peek() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise self._broken("a key is missing")
            self._peek()
            self._skip(":")
            if self._peek() == "[":
                inside = self._array()
                first = next(inside, None)
                if first and isinstance(first[1], dict) and not {"role", "from"} & first[1].keys():
                    yield first
                    rows += 1
                    for row in inside:
                        yield row
                        rows += 1
                else:
                    fields[key] = [first[1], *(value for _, value in inside)] if first else []
            else:
                fields[key] = self._value()
            if self._peek() == ",":
                self._skip(",")
            elif self._peek() != "}":
                raise self._broken("',' or '}' is missing")
        self._skip("}")
        if not rows:
            yield line, fields

    def _more(self) -> None:
        """Read on, twice as much as is waiting, and forget what has been parsed."""
        if self._ended:
            raise _CutOff
        waiting = len(self._text) - self._at
        if waiting > LONGEST:
            raise BadInput(
                f"{self.name}:{self._line}: a row longer than {LONGEST >> 20} MiB, or an open quote; correct the row"
            )
        data = self._file.read(max(CHUNK, waiting))
        self.done += len(data)
        self._ended = not data
        self._text = self._text[self._at :] + self._decoder.decode(data, final=self._ended)
        self._at = 0

    def _peek(self, end_ok: bool = False) -> str:
        """The next character that is not blank; empty at the end of the file if that is all right."""
        while True:
            start = self._at
            text, at, size = self._text, self._at, len(self._text)
            while at < size and text[at] in BLANK:
                at += 1
            self._line += text.count("\n", start, at)
            self._at = at
            if at < size:
                return text[at]
            if end_ok and self._ended:
                return ""
            try:
                self._more()
            except _CutOff:
                if end_ok:
                    return ""
                raise

    def _skip(self, mark: str) -> None:
        if self._text[self._at] != mark:
            raise self._broken(f"{mark!r} is missing")
        self._at += 1

    def _value(self) -> Any:
        """The JSON value that begins here."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                after = self._text[end : end + 1]
                # of 1.5 there may be no more yet than "1.", which the decoder takes for a 1
                if self._ended or (after and not (after in ".eE" and isinstance(value, int | float))):
                    self._line += self._text.count("\n", self._at, end)
                    self._at = end
                    return value
            except RecursionError as error:
                raise BadInput(f"{self.name}:{self._line}: {not_json(error)}") from None
            except json.JSONDecodeError as error:
                unfinished = error.pos >= len(self._text) - MARGIN or error.msg.startswith("Unterminated string")
                if not unfinished or (
                    self._ended and error.pos < len(self._text.rstrip()) and "Untermin" not in error.msg
                ):
                    self._line += self._text.count("\n", self._at, error.pos)
                    raise self._broken(error.msg) from None
            except ValueError as error:
                raise BadInput(f"{self.name}:{self._line}: {not_json(error)}") from None
            self._more()

    def _broken(self, what: str) -> BadInput:
        return BadInput(
            f"{self.name}:{self._line}: not JSON from here on ({what}); correct it: the rows after it cannot be read"
        )


_DECODER = json.JSONDecoder()
