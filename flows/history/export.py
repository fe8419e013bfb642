"""Conversations as training data: chats that `phikit data prepare` takes back, and pairs of answers to prefer.

python -m flows.history export chats.jsonl
python -m flows.history export pairs.jsonl --preferences
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.history.store import History, Message, NotFound

#: Conversations read at a time.
PAGE = 200
Turn = dict[str, str]


@dataclass(frozen=True)
class Exchange:
    """A question with its answer, under the system text that held then."""

    system: str
    question: str
    answer: Message

    @property
    def whole(self) -> bool:
        """Whether the answer came to its end: `stopped` among its details says that it did not."""
        return not self.answer.details.get("stopped")


def chats(history: History, user: str) -> Iterator[dict[str, list[Turn]]]:
    """Each of the user's conversations as a line {"messages": [...]}, the last changed first.

    Turns alternate and end with an answer: questions without one are left out. A conversation ends before an answer
    that got a thumb down or was broken off, and where its system text changes. What several say alike is given once.
    """
    seen: set[tuple[str, ...]] = set()
    for messages in _conversations(history, user):
        exchanges = _exchanges(messages)
        good = 0
        for exchange in exchanges:
            if exchange.answer.rating < 0 or not exchange.whole or exchange.system != exchanges[0].system:
                break
            good += 1
        turns = _prompt(exchanges[:good])
        identity = tuple(" ".join(turn["content"].split()) for turn in turns)
        if good and identity not in seen:
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
            answers = {"chosen": [_turn("assistant", chosen)], "rejected": [_turn("assistant", rejected)]}
            yield {"prompt": json.loads(prompt), **answers}

    for messages in _conversations(history, user):
        exchanges = _exchanges(messages)
        for number, exchange in enumerate(exchanges):
            if not exchange.whole:
                continue
            prompt = json.dumps(_prompt(exchanges[: number + 1])[:-1], ensure_ascii=False)
            answer, others = exchange.answer, _alternatives(exchange.answer)
            if answer.details.get("preferred") is True:
                for content, _ in others:
                    yield from pair(prompt, answer.content, content)
            for content, rating in [(answer.content, answer.rating), *others]:
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
    """Every conversation's messages, whatever others add, change or delete meanwhile."""
    given: set[str] = set()
    new = True
    while new:
        # one that is changed meanwhile goes to the list's head, which has been read: so once more, until none is new
        before, new = None, False
        while page := history.list(user, PAGE, before):
            for summary in page:
                if summary.id in given:
                    continue
                given.add(summary.id)
                new = True
                with contextlib.suppress(NotFound):
                    yield history.open(user, summary.id)
            before = page[-1].updated


def _exchanges(messages: list[Message]) -> list[Exchange]:
    """The questions that were answered, in order; what was asked again before an answer came counts once."""
    exchanges, system, question = [], "", ""
    for message in messages:
        if not message.content.strip():
            continue
        if message.role == "system":
            system = message.content
        elif message.role == "user":
            question = message.content
        elif question:
            # an answer may say itself which system text it was made under
            exchanges.append(Exchange(str(message.details.get("system", system)), question, message))
            question = ""
    return exchanges


def _prompt(exchanges: list[Exchange]) -> list[Turn]:
    """What was said up to the last answer, under the last one's system text."""
    turns = []
    if exchanges and exchanges[-1].system.strip():
        turns.append(_turn("system", exchanges[-1].system))
    for exchange in exchanges:
        turns += [_turn("user", exchange.question), _turn("assistant", exchange.answer.content)]
    return turns


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _alternatives(message: Message) -> list[tuple[str, int]]:
    """The other answers that the details hold, with their thumbs; none that was broken off."""
    others = message.details.get("alternatives", [])
    others = others if isinstance(others, list) else []
    others = [other for other in others if isinstance(other, dict) and not other.get("stopped")]
    found = [(other.get("content"), other.get("rating", 0)) for other in others]
    return [(content, rating) for content, rating in found if isinstance(content, str) and content.strip()]
