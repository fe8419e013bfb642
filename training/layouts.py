"""The layouts that chat datasets come in, each turned into turns: a list of (role, content) pairs.

    messages            {"messages": [{"role": "user", "content": ...}, ...]}
    ShareGPT            {"conversations": [{"from": "human", "value": ...}, ...]}
    Alpaca              {"instruction": ..., "input": ..., "output": ...}
    prompt/completion   {"prompt": ..., "completion": ...}, texts or lists of messages
    question/answer     two columns found by name, or named: --columns question=Q,answer=A

A row is recognised by its keys alone, whatever their case: `python training/prepare_data.py check FILE` tells which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from findings import BadRow

#: Role and content as the row gives them: dataset.py checks both.
Turn = tuple[Any, Any]
Converter = Callable[[dict[str, Any]], list[Turn]]

KNOWN = (
    "messages, conversations (ShareGPT), instruction/input/output (Alpaca), prompt/completion, "
    "or columns such as question/answer"
)
#: What ShareGPT exports call the speakers.
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
}
LISTS = ("messages", "conversations", "conversation")
INPUTS = ("input", "context")
QUESTIONS = ("question", "query", "q", "prompt", "instruction", "input", "user")
ANSWERS = ("answer", "response", "a", "completion", "output", "reply", "assistant")


def find_layout(keys: tuple[str, ...], columns: Mapping[str, str] | None = None) -> tuple[str, Converter]:
    """The layout's name and its converter for rows with these keys.

    `columns` names the question's, the answer's and (optionally) the system text's columns and then decides alone.
    Raises BadRow when the keys are no known layout.
    """
    if columns:
        missing = [name for name in columns.values() if name not in keys]
        if missing:
            raise BadRow(
                "unknown layout",
                f"no column {' or '.join(map(repr, missing))} among {_shown(keys)}",
                "correct --columns",
            )
        return "columns", _pair(columns["question"], columns["answer"], system=columns.get("system"))
    # exact names win over names that differ in case only
    named = {key.strip().lower(): key for key in reversed(keys)} | {key: key for key in keys}

    def first(names: tuple[str, ...], but: str | None = None) -> str | None:
        return next((named[name] for name in names if name in named and named[name] != but), None)

    system = named.get("system")
    if (turns := first(LISTS)) is not None:
        return "messages" if turns.strip().lower() == "messages" else "ShareGPT", _listed(turns, system)
    if "instruction" in named and (output := first(("output", "response"))):
        return "Alpaca", _pair(named["instruction"], output, extra=first(INPUTS), system=system)
    if "prompt" in named and "completion" in named:
        return "prompt/completion", _prompt_completion(named["prompt"], named["completion"])
    question = first(QUESTIONS)
    if question is not None and (answer := first(ANSWERS, but=question)):
        return "question/answer", _pair(question, answer, system=system)
    raise BadRow(
        "unknown layout",
        f"keys {_shown(keys)} are no known layout ({KNOWN})",
        "name them: --columns question=...,answer=...",
    )


def _shown(keys: tuple[str, ...]) -> str:
    """The first few keys, so that a row with a thousand of them still makes one line."""
    return ", ".join(repr(key) for key in keys[:8]) + (", ..." if len(keys) > 8 else "") if keys else "(none)"


def _pair(question: str, answer: str, extra: str | None = None, system: str | None = None) -> Converter:
    """One question and one answer; `extra` is text that the question refers to, and may be empty."""

    def convert(row: dict[str, Any]) -> list[Turn]:
        asked = row[question]
        if extra is not None and (more := row[extra]):
            if not isinstance(more, str) or not isinstance(asked, str):
                raise BadRow("content not text", f"{extra!r} or {question!r} is not text", "make both texts")
            asked = f"{asked}\n\n{more}"
        turns = [("user", asked), ("assistant", row[answer])]
        return [("system", row[system]), *turns] if system and row[system] else turns

    return convert


def _prompt_completion(prompt: str, completion: str) -> Converter:
    """Two texts, or two lists of messages of which the second goes on where the first stops."""

    def convert(row: dict[str, Any]) -> list[Turn]:
        asked, answered = row[prompt], row[completion]
        if isinstance(asked, list) or isinstance(answered, list):
            if not (isinstance(asked, list) and isinstance(answered, list)):
                raise BadRow(
                    "unknown layout",
                    f"only one of {prompt!r} and {completion!r} is a list",
                    "make both lists, or both texts",
                )
            return _turns(prompt, asked) + _turns(completion, answered)
        return [("user", asked), ("assistant", answered)]

    return convert


def _listed(key: str, system: str | None) -> Converter:
    """A list of turns, and sometimes the system text beside it."""

    def convert(row: dict[str, Any]) -> list[Turn]:
        listed = row[key]
        if isinstance(listed, str):  # a CSV cell
            try:
                listed = json.loads(listed)
            except (ValueError, RecursionError):
                raise BadRow(
                    "not JSON", f"{key!r} is text that is no JSON list", "write the turns as a JSON list"
                ) from None
        turns = _turns(key, listed)
        if system and row[system] and turns and turns[0][0] != "system":
            return [("system", row[system]), *turns]
        return turns

    return convert


def _turns(key: str, listed: Any) -> list[Turn]:
    """Each turn as (role, content), of role/content as well as of from/value."""
    try:
        if "from" in listed[0]:
            return [(SPEAKERS[turn["from"]], turn["value"]) for turn in listed]
        return [(turn["role"], turn["content"]) for turn in listed]
    except (KeyError, TypeError, IndexError):
        pass  # rare: looked at turn by turn below
    if not isinstance(listed, list):
        raise BadRow(
            "unknown layout", f"{key!r} is {kind_of(listed)}, not a list of turns", "write a list of role/content"
        )
    turns = []
    for number, turn in enumerate(listed, 1):
        if not isinstance(turn, dict):
            raise BadRow(
                "unknown layout",
                f"turn {number} of {key!r} is {kind_of(turn)}",
                "write an object with role and content",
            )
        if "role" in turn:
            turns.append((turn["role"], turn.get("content")))
        elif "from" in turn:
            speaker = turn["from"]
            role = SPEAKERS.get(speaker.lower(), speaker) if isinstance(speaker, str) else speaker
            turns.append((role, turn.get("value")))
        else:
            raise BadRow(
                "unknown role", f"turn {number} of {key!r} has neither 'role' nor 'from'", "say who speaks in each turn"
            )
    return turns


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return {str: "text", list: "a list", dict: "an object"}.get(type(value), f"a {type(value).__name__}")
