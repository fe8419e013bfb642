"""The kept conversations (flows/history) as Agent Framework's history: an agent's session is a conversation.

agent = Agent(client, context_providers=[KeptHistory(history, "local")])
session = agent.create_session(session_id=history.start("local"))
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import agent_framework

from flows.history import History, Message, new_id


class BrokenOff(RuntimeError):
    """The answer ended without saying that it has ended."""


class KeptHistory(agent_framework.HistoryProvider):
    """Reads a session's messages before each answer, and keeps question and answer together after it.

    An answer that fails or is broken off is not kept, nor is its question. `details`: noted at each answer.
    """

    def __init__(self, history: History, user: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__("kept")
        self._history = history
        self._user = user
        self._details = dict(details or {})

    async def get_messages(self, session_id: str | None, **_: Any) -> list[agent_framework.Message]:
        """What was said so far; system texts are left to the agent's instructions."""
        # (the store may wait for others: the event loop does not)
        kept = await asyncio.to_thread(self._history.open, self._user, str(session_id))
        return [agent_framework.Message(message.role, [message.content]) for message in turns(kept)]

    async def after_run(self, **run: Any) -> None:
        """Keep the answer if it is one, and whole; raises BrokenOff for half an answer."""
        response = run["context"].response
        if response is None or not response.text:
            return
        if not response.finish_reason:
            raise BrokenOff
        await super().after_run(**run)

    async def save_messages(
        self, session_id: str | None, messages: Sequence[agent_framework.Message], **_: Any
    ) -> None:
        """Keep these messages, all or none."""
        now = time.time()
        new = [
            Message(new_id(), str(message.role), message.text, now, 0, self._details if _answers(message) else {})
            for message in messages
            if message.text
        ]
        await asyncio.to_thread(self._history.append, self._user, str(session_id), *new)


def turns(messages: Sequence[Message]) -> list[Message]:
    """Each question with the answer after it, as the chat flow is given them; a question without one is left out."""
    spoken = [message for message in messages if message.role != "system"]
    pairs = itertools.pairwise(spoken)
    return [
        turn
        for question, answer in pairs
        if question.role == "user" and answer.role == "assistant"
        for turn in (question, answer)
    ]


def system_of(messages: Sequence[Message]) -> str:
    """The system text that a conversation began with."""
    return next((message.content for message in messages if message.role == "system"), "")


def _answers(message: agent_framework.Message) -> bool:
    return str(message.role) == "assistant"
