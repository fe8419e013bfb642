"""The flow's one node: a question and what was said before to the endpoint, its answer back as it comes.

pf flow test --flow flows/chat --inputs input_data="Who founded Microsoft?"
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache

from endpoint import Endpoint, EndpointError
from promptflow.core import tool
from promptflow.exceptions import UserErrorException

try:
    # what promptflow's server knows of the request in hand; it has no public name
    from promptflow.core._serving.v2.fastapi_context_data_provider import _request_ctx_var as request_in_hand
except ImportError:  # no fastapi, so nothing is served by it
    request_in_hand = None

#: Bytes of a question, which is far beyond any model's context.
LONGEST = 64 * 1024
#: Past it, answers are noise.
HOTTEST = 2.0


#: Text, or how an answer ended that has no end: {"error": {"message": "…"}}.
Piece = str | dict[str, dict[str, str]]


class Refused(UserErrorException):
    """What keeps the question from being answered, in one sentence."""


# connections are kept from call to call
_endpoint = lru_cache(Endpoint.configured)


@tool
def ask(
    input_data: str,
    chat_history: list,
    system: str = "",
    model: str = "tuned",
    temperature: float = 0.0,
    max_tokens: int = 128,
) -> Iterator[Piece] | str:
    """Answer a question, in pieces to a client of the flow that takes events.

    Args:
        chat_history: promptflow's own: inputs and outputs of each earlier turn, oldest first.

    Raises:
        Refused: an input that cannot be used, or an endpoint that gives no answer.
    """
    messages = _messages(input_data, chat_history, system)
    if not 0 <= temperature <= HOTTEST:
        raise Refused(f"temperature: must be 0 (greedy) to {HOTTEST:g}")
    if max_tokens < 1:
        raise Refused("max_tokens: must be 1 or more")
    try:
        pieces = _endpoint(model).stream(messages, temperature, max_tokens)
        if not _streams():
            # promptflow would swallow an answer that breaks off while it puts the pieces together
            return "".join(pieces)
        # what goes wrong goes wrong before the first piece, nearly always: here it can still be a status
        first = next(pieces, "")
    except EndpointError as error:
        raise Refused(str(error)) from None
    return _told(itertools.chain([first], pieces))


def _told(pieces: Iterator[str]) -> Iterator[Piece]:
    """The pieces; the last one is an error where they break off, since promptflow ends such a stream like any other."""
    try:
        yield from pieces
    except EndpointError as error:
        yield {"error": {"message": str(error)}}


def _streams() -> bool:
    """Whether the answer is for a client that takes events."""
    request = request_in_hand.get() if request_in_hand is not None else None
    return bool(request and request.get("streaming"))


def _messages(question: str, history: list, system: str) -> list[dict[str, str]]:
    if not isinstance(question, str) or not question.strip():
        raise Refused("input_data: must be a text that is not empty")
    if len(question.encode(errors="replace")) > LONGEST:
        raise Refused(f"input_data: is longer than {LONGEST // 1024} kB; shorten it")
    messages = [{"role": "system", "content": system}] if system else []
    for number, turn in enumerate(history):
        try:
            asked, answered = turn["inputs"]["input_data"], turn["outputs"]["answer"]
        except (KeyError, TypeError, IndexError):
            asked = answered = None
        if not isinstance(asked, str) or not isinstance(answered, str):
            raise Refused(
                f"chat_history[{number}]: must be as {{'inputs': {{'input_data': …}}, 'outputs': {{'answer': …}}}}"
            )
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]
