"""What is shown of a conversation and what of it is sent to the flow: rules without a page, a store or a network.

pytest tests/flows/test_page_conversation.py
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from flows.history import Message, new_id

#: Bytes of a message, as UTF-8; some four times what the usual model reads at once.
LONGEST = 65_536
#: Bounds of the settings on the page: tokens of an answer, and the flow's own default.
TOKENS = (1, 2048)
DEFAULT_TOKENS = 128
#: The flow's names for the two models.
TUNED, BASE = "tuned", "base"
THUMBS = {1: "Like", -1: "Dislike"}


class Refused(Exception):
    """What was asked for cannot be done; the text is for people."""


@dataclass(frozen=True)
class Options:
    """How to answer: the settings below the conversation."""

    system: str | None = None
    """None: the conversation's own."""
    temperature: float = 0.0
    max_tokens: int = DEFAULT_TOKENS
    compare: bool = False


@dataclass(frozen=True)
class View:
    """What the page shows at one moment.

    `messages` are those of the store; `partial` the answer that is coming and `partial_base` the base model's beside
    it, None where there is none. `alert` says what went wrong, and `again` whether another try may help.
    """

    conversation: str = ""
    messages: Sequence[Message] = ()
    partial: str | None = None
    partial_base: str | None = None
    alert: str = ""
    again: bool = False
    busy: bool = False
    listed: bool = field(default=False, compare=False)
    """Whether the list of conversations has changed."""
    unread: bool = False
    """The store could not be read: what stands on the page stays, but for the alert."""

    def change(self, **changes: Any) -> View:
        """The same view with other values."""
        return replace(self, **changes)


def checked(text: str) -> str:
    """The message as it is sent.

    Raises:
        Refused: it is empty or too long.
    """
    if not text.strip():
        raise Refused("The message is empty. Write something, then press Enter.")
    if (size := len(text.encode(errors="replace"))) > LONGEST:
        raise Refused(f"The message has {size:,} bytes, and {LONGEST:,} is the most. Shorten it.")
    # half of a pair of UTF-16 is no text, and neither the store nor the flow can take it
    return text.strip("\n").encode(errors="replace").decode()


def shown(messages: Iterable[Message]) -> list[Message]:
    """The messages that stand on the page: all but the system prompt."""
    return [message for message in messages if message.role != "system"]


def system_of(messages: Iterable[Message]) -> str:
    """The conversation's system prompt; empty without one."""
    return next((message.content for message in messages if message.role == "system"), "")


def bubble(role: str, text: str) -> dict[str, str]:
    """A message for Gradio, which puts it on the page as HTML (and takes away what it finds dangerous): escaped, so
    that what was written is what is read. page.js undoes it for whoever copies or edits."""
    return {"role": role, "content": text.replace("&", "&amp;").replace("<", "&lt;")}


def bubbles(view: View) -> list[dict[str, str]]:
    """The conversation as the page's left (or only) column shows it."""
    column = []
    for message in shown(view.messages):
        other = alternative(message) if swapped(message) else None
        column.append(bubble(message.role, other["content"] if other else message.content))
    if view.partial is not None:
        column.append(bubble("assistant", view.partial))
    return column


def base_bubbles(view: View) -> list[dict[str, str]]:
    """The right column: the same questions, and what the base model answered where it was asked."""
    column: list[dict[str, str]] = []
    for message in shown(view.messages):
        if message.role == "user":
            column.append(bubble("user", message.content))
        elif (other := alternative(message)) is not None:
            column.append(bubble("assistant", message.content if swapped(message) else other["content"]))
    if view.partial_base is not None:
        column.append(bubble("assistant", view.partial_base))
    return column


def alternative(message: Message) -> dict[str, Any] | None:
    """The answer that an answer was compared with."""
    others = message.details.get("alternatives") or []
    return dict(others[0]) if others else None


def swapped(message: Message) -> bool:
    """Whether the base model's answer was taken: it stays in its own column all the same."""
    return message.details.get("model") == BASE and alternative(message) is not None


def compared(messages: Sequence[Message]) -> bool:
    """Whether the base model's column belongs to the conversation: a choice is due, or its answer was taken."""
    return undecided(messages) or any(swapped(message) for message in messages)


def undecided(messages: Sequence[Message]) -> bool:
    """Whether the last answer is one of two, and nobody has chosen yet."""
    last = messages[-1] if messages else None
    return last is not None and alternative(last) is not None and not last.details.get("preferred")


def preferred(messages: Sequence[Message], base: bool) -> tuple[Message, Message]:
    """The last answer, and what takes its place once it, or the base model's beside it, is the better one.

    Raises:
        Refused: there are no two answers.
    """
    last = messages[-1] if messages else None
    other = alternative(last) if last else None
    if not last or not other:
        raise Refused("There are no two answers to choose from.")
    details = {**last.details, "preferred": True}
    if not base:
        return last, replace(last, id=new_id(), details=details)
    # each keeps its own thumb, and whether it came to its end
    mine = {"content": last.content, "model": details.get("model", TUNED), "rating": last.rating}
    if details.pop("stopped", False):
        mine["stopped"] = True
    details |= {"model": other.get("model", BASE), "alternatives": [mine]}
    details |= {"stopped": True} if other.get("stopped") else {}
    chosen = replace(last, id=new_id(), content=other["content"], rating=other.get("rating", 0), details=details)
    return last, chosen


def thumbs(messages: Iterable[Message]) -> list[str | None]:
    """For each answer on the page, its thumb by the page's name for it."""
    answers = [message for message in shown(messages) if message.role == "assistant"]
    return [None if swapped(answer) else THUMBS.get(answer.rating) for answer in answers]


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The flow's chat_history: each question with the answer after it; a question without one is left out."""
    visible = shown(messages)
    return [
        {"inputs": {"input_data": question.content}, "outputs": {"answer": answer.content}}
        for question, answer in pairwise(visible)
        if question.role == "user" and answer.role == "assistant"
    ]


def question_before(messages: Sequence[Message], index: int) -> tuple[Message, Message | None]:
    """The last question at or before place `index` of the page, and the message that follows it, if any.

    Raises:
        Refused: there is no question.
    """
    visible = shown(messages)
    for place in range(min(index, len(visible) - 1), -1, -1):
        if visible[place].role == "user":
            return visible[place], visible[place + 1] if place + 1 < len(visible) else None
    raise Refused("There is no question to ask again.")
