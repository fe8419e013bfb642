"""What a store of conversations does, whichever it is: SQLite's file (sqlite.py) or Azure Cosmos DB (cosmos.py).

    from flows.history import Message, new_id, open_history
    history = open_history(os.environ)
    conversation = history.start("ada")
    history.append("ada", conversation, Message(new_id(), "user", "Who founded Microsoft?", time.time()))

Every method takes the user first, and sees that user's conversations alone: another's are as if they were not there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

ROLES = ("system", "user", "assistant")
#: Whose conversations they are where nobody logs in.
NOBODY = "local"
#: Thumbs down, none, thumbs up.
RATINGS = (-1, 0, 1)
#: Characters of a title; a longer one is cut, and so is the question that becomes one.
TITLE = 80


class NotFound(LookupError):
    """The user has no such conversation, or it has no such message."""


class Unavailable(RuntimeError):
    """The store cannot answer now: locked, full, read-only, throttled or out of reach. The text is for people."""


@dataclass(frozen=True)
class Message:
    """One message as it is kept.

    `created` is in seconds since 1970. `rating` is the thumb: -1, 0 or 1. `details` says how an answer came about, as
    JSON: `model`, `temperature`, `max_tokens`; `system`, its system text where that is not the conversation's own;
    `stopped`: true when it was broken off; `alternatives`, other answers to the same question, each with `content` and,
    if they are known, `model`, `rating`, `stopped`; `preferred`: true once a person chose this answer over those.
    """

    id: str
    role: str
    content: str
    created: float
    rating: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """One conversation in a list: `updated` in seconds since 1970, `messages` their number."""

    id: str
    title: str
    updated: float
    messages: int


class History(Protocol):
    """A store of conversations, safe for several threads and several processes.

    Every method raises Unavailable when the store cannot answer, and what it was to do then has not been done; those
    that take a conversation raise NotFound when this user has no such one. Bad arguments raise ValueError.
    """

    def start(self, user: str, title: str = "", messages: Sequence[Message] = ()) -> str:
        """Begin a conversation, with these messages, and return its id; without a title the first question is it."""
        ...

    def list(self, user: str, limit: int = 50, before: float | None = None, search: str = "") -> list[Summary]:
        """The user's conversations, the last changed first; `before` is the `updated` where the page before ended.

        `search` keeps those in whose title or messages the text occurs, whatever its case.
        """
        ...

    def open(self, user: str, conversation: str) -> list[Message]:
        """The conversation's messages in order."""
        ...

    def append(self, user: str, conversation: str, *messages: Message) -> None:
        """Add messages at the end, all or none; a message whose id is there already is not added twice."""
        ...

    def truncate(self, user: str, conversation: str, message_id: str, *instead: Message) -> None:
        """Take away that message and all after it, and add others in their place, all of it or nothing."""
        ...

    def rate(self, user: str, conversation: str, message_id: str, rating: int) -> None:
        """Set a message's thumb: -1, 0 or 1."""
        ...

    def rename(self, user: str, conversation: str, title: str) -> None:
        """Give the conversation another title; ValueError for an empty one."""
        ...

    def delete(self, user: str, conversation: str) -> None:
        """Take away the conversation with its messages, for good."""
        ...

    def close(self) -> None:
        """Let go of the file or the connection; the store is not used after this."""
        ...


def new_id() -> str:
    """An id for a message or a conversation that no other has."""
    return uuid.uuid4().hex


def check_user(user: str) -> None:
    """Raise ValueError for a name that could not tell users apart."""
    if not user.strip():
        raise ValueError("user: is empty; give a name")
    check_text("user", user)


def check_text(field: str, text: str) -> None:
    """Raise ValueError for text that no store could keep."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field}: holds half of a surrogate pair; write the whole character") from None


def check_rating(rating: int) -> None:
    """Raise ValueError for a number that is no thumb."""
    if rating not in RATINGS:
        raise ValueError(f"rating {rating}: must be -1, 0 or 1")


def check_messages(messages: Sequence[Message]) -> None:
    """Raise ValueError for a message that could not be given back as it is."""
    for message in messages:
        if message.role not in ROLES:
            raise ValueError(f"role {message.role!r}: must be one of {', '.join(ROLES)}")
        check_text("content", message.content)
        check_rating(message.rating)
        details_json(message.details)


def details_json(details: Mapping[str, Any]) -> str:
    """A message's details as JSON; raises ValueError where they are none."""
    try:
        text = json.dumps(dict(details), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"details: are not JSON ({error})") from None
    check_text("details", text)
    return text


def as_title(text: str) -> str:
    """One line of at most TITLE characters from any text; raises ValueError for text that cannot be kept."""
    check_text("title", text)
    line = " ".join(text.split())
    return line if len(line) <= TITLE else line[: TITLE - 1].rstrip() + "…"


def title_of(messages: Sequence[Message]) -> str:
    """The title that messages give a conversation which has none: their first question."""
    return next((as_title(message.content) for message in messages if message.role == "user"), "")
