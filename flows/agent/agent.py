"""The model that was trained, as an agent: one client of the endpoint, one history, one set of options.

async with chatting(os.environ, history) as chat:
    async for piece in chat.ask(conversation, "Who founded Microsoft?"):
        print(piece, end="")
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import openai
from agent_framework import Agent
from agent_framework.exceptions import AgentFrameworkException
from agent_framework.openai import OpenAIChatCompletionClient

from flows.agent.memory import BrokenOff, KeptHistory, system_of
from flows.endpoint import Endpoint, EndpointError
from flows.history import History, Message, new_id
from flows.history.store import NOBODY

#: What answers are marked with, as the page marks those of the flow.
MODEL = "tuned"


class AnswerError(RuntimeError):
    """No answer came, or half of one; the text is one line for people."""


@dataclass(frozen=True)
class Options:
    """How answers are made; names and defaults are those of the chat flow's inputs."""

    system: str = ""
    temperature: float = 0.0
    max_tokens: int = 128


class Chat:
    """Conversations of one user with the model behind the endpoint."""

    def __init__(self, endpoint: Endpoint, client: openai.AsyncOpenAI, history: History, user: str) -> None:
        self._endpoint = endpoint
        self._client = client
        self._history = history
        self._user = user

    async def ask(self, conversation: str, question: str, options: Options = Options()) -> AsyncIterator[str]:
        """The answer in pieces, as they come; once it is whole, question and answer are kept in the conversation.

        Raises NotFound and Unavailable as the history does, AnswerError when the endpoint gives no whole answer.
        """
        kept = await asyncio.to_thread(self._history.open, self._user, conversation)
        system = options.system.strip() or system_of(kept)
        if system and not kept:
            kept = [Message(new_id(), "system", system, time.time())]
            await asyncio.to_thread(self._history.append, self._user, conversation, *kept)
        details = {"model": MODEL, "temperature": options.temperature, "max_tokens": options.max_tokens}
        if system != system_of(kept):
            details["system"] = system
        answered = False
        secrets = (self._endpoint.key, question, system, *(message.content for message in kept))
        try:
            # the server takes the name that it has for its model, and no other
            name = await asyncio.to_thread(lambda: self._endpoint.name)
            if name is None:
                raise AnswerError(f"{self._endpoint.origin} has no route /v1/chat/completions, which agents ask")
            agent = Agent(
                OpenAIChatCompletionClient(name, async_client=self._client),
                system or None,
                default_options={"temperature": options.temperature, "max_tokens": options.max_tokens},
                context_providers=[KeptHistory(self._history, self._user, details)],
            )
            session = agent.create_session(session_id=conversation)
            tries = 0
            while True:
                try:
                    with self._endpoint.faults():
                        try:
                            async for update in agent.run(question, stream=True, session=session):
                                if update.text:
                                    answered = True
                                    yield update.text
                        except AgentFrameworkException as error:
                            raise _cause(error) from None
                    break
                except EndpointError as error:
                    tries += 1
                    wait = None if answered else self._endpoint.wait(error, tries)
                    if wait is None:
                        raise
                    await asyncio.sleep(wait)
        except EndpointError as error:
            raise AnswerError(str(error.without(*secrets))) from None
        except AgentFrameworkException as error:
            raise AnswerError(" ".join(str(error).split())) from error
        except BrokenOff:
            raise AnswerError(f"{self._endpoint.origin} broke the answer off; try again") from None
        if not answered:
            raise AnswerError("the model answered with nothing; ask in other words")


@asynccontextmanager
async def chatting(environment: Mapping[str, str], history: History, user: str = NOBODY) -> AsyncIterator[Chat]:
    """A Chat with the endpoint that the settings name, for as long as the block takes; raises ValueError for theirs."""
    try:
        endpoint = Endpoint.configured("tuned", environment)
    except EndpointError as error:
        raise ValueError(str(error)) from None
    async with endpoint.async_client() as client:
        yield Chat(endpoint, client, history, user)


def _cause(error: BaseException) -> BaseException:
    """The client's own error, which the framework wraps."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, openai.OpenAIError):
        cause = cause.__cause__
    return cause or error
