"""One row -> one checked conversation, or what is wrong with it: all that can be told without looking at other rows.

Optional system text, then user and assistant in turns, ending with the assistant, and no content empty. dataset.py
compares the rows with each other; try `python training/prepare_data.py check FILE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from findings import BadRow
from layouts import Turn, find_layout, kind_of
from token_count import estimated_tokens

#: Counts the tokens of one conversation.
TokenCount = Callable[[list[Turn]], int]
ROLES = ("system", "user", "assistant")
#: What stands before the content of each role in a prepared line.
OPENING = {role: f'{{"role": "{role}", "content": "' for role in ROLES}
#: What stands between contents that are worked on together.
BETWEEN = " \0 "
#: JSON's usual escapes, in an order in which none is escaped again.
ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r"))
#: ASCII's white space, each turned into a blank.
BLANKS = bytes.maketrans(b"\t\n\v\f\r", b" " * 5)
CONTROLS = bytes(range(32))
#: Layouts remembered by their keys; rows whose keys are data would fill the memory.
REMEMBERED = 1000


class Conversation(NamedTuple):
    """One good row."""

    line: bytes
    """Its line in a prepared file: {"messages": [...]}."""
    digest: bytes
    """The same for the same conversation, however its white space is laid out."""
    layout: str
    turns: int
    tokens: int


Judged = tuple[int, Conversation | BadRow]


def judge_rows(
    rows: Iterable[tuple[int, Any]], columns: Mapping[str, str] | None = None, count_tokens: TokenCount | None = None
) -> Iterator[Judged]:
    """Each row's number with the conversation in it, or with the first thing that is wrong with it.

    `columns`: see layouts.find_layout. `count_tokens` None: tokens are estimated.
    """
    converters: dict[tuple[str, ...], Any] = {}
    for number, row in rows:
        try:
            if type(row) is not dict:
                raise row if isinstance(row, BadRow) else _not_an_object(row)
            keys = tuple(row)
            if (found := converters.get(keys)) is None:
                found = find_layout(keys, columns)
                if len(converters) < REMEMBERED:
                    converters[keys] = found
            layout, convert = found
            turns = check_turns(convert(row))
            line, identity = render(turns)
            tokens = count_tokens(turns) if count_tokens else estimated_tokens(len(identity), len(turns))
            digest = sha256(identity).digest()[:16]
            judged: Conversation | BadRow = Conversation(line, digest, layout, len(turns), tokens)
        except BadRow as problem:
            judged = problem
        except UnicodeEncodeError:
            judged = BadRow(
                "not UTF-8", "the text holds half of a surrogate pair (\\ud800 to \\udfff)", "write the whole character"
            )
        yield number, judged


def _not_an_object(row: Any) -> BadRow:
    return BadRow("not an object", f"the row is {kind_of(row)}", 'write an object such as {"messages": [...]}')


def render(turns: list[Turn]) -> tuple[bytes, bytes]:
    """The line of a prepared file, and what tells the conversation from others however its white space is laid out.

    The line is what json.dumps(..., ensure_ascii=False) writes. The identity is the contents' words, split at ASCII's
    white space. Raises UnicodeEncodeError for half a surrogate pair.
    """
    # On all contents at once, with searches that the C library does: a third of the time of one call a content.
    joined = BETWEEN.join([content for _, content in turns])
    if joined.count("\0") >= len(turns):
        return _render_with_nul(turns)
    escaped = joined
    for character, escape in ESCAPES:
        if character in escaped:
            escaped = escaped.replace(character, escape)
    contents = escaped.split(BETWEEN)
    listed = '"}, '.join([OPENING[turn[0]] + content for turn, content in zip(turns, contents, strict=True)])
    line = f'{{"messages": [{listed}"}}]}}'.encode()
    if len(line.translate(None, CONTROLS)) != len(line):  # the rare ones, which JSON writes \u001b
        line = _line(turns)
    # the first role tells all others, for they alternate
    return line + b"\n", _one_blank(f"{turns[0][0]} {joined} ".encode())


def _one_blank(text: bytes) -> bytes:
    text = text.translate(BLANKS)
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def _render_with_nul(turns: list[Turn]) -> tuple[bytes, bytes]:
    """The same for contents that hold the character that else stands between them."""
    contents = BETWEEN.join([content.replace("\\", "\\\\").replace("\0", "\\0") for _, content in turns])
    return _line(turns) + b"\n", _one_blank(f"\0{turns[0][0]} {contents} ".encode())


def _line(turns: list[Turn]) -> bytes:
    listed = "}, ".join([OPENING[role][:-1] + encode_basestring(content) for role, content in turns])
    return f'{{"messages": [{listed}}}]}}'.encode()


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
