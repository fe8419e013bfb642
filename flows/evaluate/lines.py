"""Held-out conversations as lines of the chat flow: what was said before, the last question, the answer expected.

rows = read(Path("data/test_data.jsonl"))
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Findings that are named one by one.
SHOWN = 10


class BadData(ValueError):
    """The file cannot be used; one line a finding, with file and line."""


def read(file: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The lines, `limit` at most; raises BadData."""
    try:
        texts = lines_of(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no UTF-8 text"
        raise BadData(f"{file}: {reason}; make one with: make data, or give --data FILE") from None
    rows, findings = [], []
    for number, text in enumerate(texts, 1):
        if not text.strip() or (limit is not None and len(rows) == limit):
            continue
        row = _line(text)
        if isinstance(row, str):
            findings.append(f"{file}, line {number}: {row}")
        else:
            rows.append({"line": number, **row})
    if len(findings) > SHOWN:
        findings[SHOWN:] = [f"{file}: and {len(findings) - SHOWN} more"]
    if findings or not rows:
        raise BadData("\n".join(findings or [f"{file}: has no conversation"]))
    return rows


def lines_of(file: Path) -> list[str]:
    """The lines of a JSONL file; raises OSError, UnicodeDecodeError. (str.splitlines would split within texts, too.)"""
    return file.read_text(encoding="utf-8").split("\n")


def _line(text: str) -> dict[str, Any] | str:
    """The line's inputs, or what is wrong with it."""
    try:
        messages = [(str(message["role"]), message["content"]) for message in json.loads(text)["messages"]]
    except (ValueError, TypeError, KeyError):
        return 'is no conversation; it must be {"messages": [{"role": …, "content": …}, …]}'
    if not all(isinstance(content, str) for _, content in messages):
        return "a message's content is no text"
    system = messages.pop(0)[1] if messages and messages[0][0] == "system" else ""
    roles = [role for role, _ in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        return "user and assistant must take turns, and the assistant must have the last word"
    pairs = list(zip(messages[::2], messages[1::2], strict=True))
    history = [{"inputs": {"input_data": asked}, "outputs": {"answer": said}} for (_, asked), (_, said) in pairs[:-1]]
    return {
        "question": pairs[-1][0][1],
        "history": history,
        "system": system,
        "expected": pairs[-1][1][1],
    }
