"""Conversations as training data: chats that `phikit data prepare` takes back, and pairs of answers to prefer.

python -m flows.history export chats.jsonl
python -m flows.history export pairs.jsonl --preferences
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flows.history.store import History, Message, NotFound

#: Conversations read at a time.
PAGE = 200
Turn = dict[str, str]


def chats(history: History, user: str) -> Iterator[dict[str, list[Turn]]]:
    """Each of the user's conversations as a line {"messages": [...]}, the last changed first.

    Turns alternate and end with an answer: questions without one are left out. A conversation ends before an answer
    that got a thumb down, and where its system text changes. Of several that say the same one is given.
    """
    seen: set[tuple[str, ...]] = set()
    for messages in _conversations(history, user):
        turns = [turn for turn, _ in _turns(messages, until_disliked=True)]
        identity = tuple(" ".join(turn["content"].split()) for turn in turns)
        if any(turn["role"] == "assistant" for turn in turns) and identity not in seen:
            seen.add(identity)
            yield {"messages": turns}


def preferences(history: History, user: str) -> Iterator[dict[str, list[Turn]]]:
    """Pairs {"prompt": [...], "chosen": [...], "rejected": [...]}, TRL's conversational preference format.

    An answer that was chosen in a comparison is preferred to each of its alternatives; an answer with a thumb up to
    every answer with a thumb down to the same prompt, in whichever of the user's conversations.
    """
    given: set[tuple[str, str, str]] = set()
    rated: dict[str, tuple[list[str], list[str]]] = {}

    def pair(prompt: str, chosen: str, rejected: str) -> Iterator[dict[str, list[Turn]]]:
        if chosen.strip() != rejected.strip() and (prompt, chosen, rejected) not in given:
            given.add((prompt, chosen, rejected))
            answers = {"chosen": [_answer(chosen)], "rejected": [_answer(rejected)]}
            yield {"prompt": json.loads(prompt), **answers}

    for messages in _conversations(history, user):
        turns = _turns(messages)
        for number, (turn, message) in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            prompt = json.dumps([turn for turn, _ in turns[:number]], ensure_ascii=False)
            others = _alternatives(message)
            if message.details.get("preferred") is True:
                for content, _ in others:
                    yield from pair(prompt, message.content, content)
            for content, rating in [(message.content, message.rating), *others]:
                if rating in (-1, 1):
                    rated.setdefault(prompt, ([], []))[rating < 0].append(content)
    for prompt, (liked, disliked) in rated.items():
        for chosen in liked:
            for rejected in disliked:
                yield from pair(prompt, chosen, rejected)


def write(path: Path, lines: Iterable[dict[str, Any]]) -> int:
    """Write JSON lines and return their number; the file appears whole, and not at all when there are none.

    Raises OSError when it cannot be written. Readable for its owner alone.
    """
    count = 0
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for count, line in enumerate(lines, 1):  # noqa: B007 (the last one is the number)
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if count:
            Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return count


def _conversations(history: History, user: str) -> Iterator[list[Message]]:
    """Every conversation's messages, whatever others add or delete meanwhile."""
    before = None
    while page := history.list(user, PAGE, before):
        for summary in page:
            try:
                yield history.open(user, summary.id)
            except NotFound:
                continue
        before = page[-1].updated


def _turns(messages: list[Message], until_disliked: bool = False) -> list[tuple[Turn, Message]]:
    """Messages that a model can learn from: one system text or none, then questions, each with its answer."""
    turns: list[tuple[Turn, Message]] = []
    question: Message | None = None
    for message in messages:
        if not message.content.strip():
            continue
        if message.role == "system":
            if any(turn["role"] != "system" for turn, _ in turns):
                if message.content != turns[0][0]["content"]:
                    break
            else:
                turns = [_turn(message)]
        elif message.role == "user":
            question = message
        elif question is not None:
            if until_disliked and message.rating < 0:
                break
            turns += [_turn(question), _turn(message)]
            question = None
    return turns


def _turn(message: Message) -> tuple[Turn, Message]:
    return {"role": message.role, "content": message.content}, message


def _answer(content: str) -> Turn:
    return {"role": "assistant", "content": content}


def _alternatives(message: Message) -> list[tuple[str, int]]:
    """The other answers that the details hold, with their thumbs."""
    others = message.details.get("alternatives", [])
    others = [other for other in others if isinstance(other, dict)] if isinstance(others, list) else []
    found = [(other.get("content"), other.get("rating", 0)) for other in others]
    return [(content, rating) for content, rating in found if isinstance(content, str) and content.strip()]
