"""The flow's one node: a question and what was said before to the endpoint, its answer back as it comes.

pf flow test --flow flows/chat --inputs input_data="Who founded Microsoft?"
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import lru_cache

from endpoint import Endpoint, EndpointError
from promptflow.core import tool
from promptflow.exceptions import UserErrorException

try:
    # what promptflow's server knows of the request in hand, and its route; they have no public names
    from promptflow.core._serving.v2.fastapi_context_data_provider import _request_ctx_var as request_in_hand
    from promptflow.core._serving.v2.routers import score as route
except ImportError:  # no fastapi, so nothing is served by it
    request_in_hand = route = None

#: Bytes of a question, which is far beyond any model's context.
LONGEST = 64 * 1024
#: Past it, answers are noise.
HOTTEST = 2.0


#: Text, or how an answer ended that has no end: {"error": {"message": "…"}}.
Piece = str | dict[str, dict[str, str]]


class Refused(UserErrorException):
    """What keeps the question from being answered, in one sentence."""


def checked(data: object) -> object:
    """A request's body as it came: promptflow would make texts of what is none, and put its example for a missing one.

    Raises:
        Refused: it is no object, or input_data, system or model is no text.
    """
    if not isinstance(data, dict):
        raise Refused('the body: must be an object such as {"input_data": "Who founded Microsoft?"}')
    if "input_data" not in data:
        raise Refused("input_data: is missing; it is the question, a text")
    for name in ("input_data", "system", "model"):
        if not isinstance(data.get(name, ""), str):
            raise Refused(f"{name}: must be a text")
    return data


if route is not None and not hasattr(route, "read_by_promptflow"):
    # the only place where the body is still what was sent: a node gets converted values, and none of a body like "x"
    route.read_by_promptflow = route.load_request_data
    route.load_request_data = lambda *arguments: checked(route.read_by_promptflow(*arguments))

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
    about: bool = False,
) -> Iterator[Piece] | str:
    """Answer a question, in pieces to a client of the flow that takes events.

    Args:
        chat_history: promptflow's own: inputs and outputs of each earlier turn, oldest first.
        about: no question is asked; the answer is what the server says of its model, as JSON.

    Raises:
        Refused: an input that cannot be used, or an endpoint that gives no answer.
    """
    if about:
        return _about(model)
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
        raise Refused(_said(error)) from None
    return _told(itertools.chain([first], pieces))


def _about(model: str) -> str:
    try:
        return json.dumps(_endpoint(model).about())
    except EndpointError as error:
        raise Refused(str(error)) from None


def _told(pieces: Iterator[str]) -> Iterator[Piece]:
    """The pieces; the last one is an error where they break off, since promptflow ends such a stream like any other."""
    try:
        yield from pieces
    except EndpointError as error:
        yield {"error": {"message": _said(error)}}


def _said(error: EndpointError) -> str:
    """The sentence; where another try may help it says so, for promptflow's status is 400 either way."""
    text = str(error)
    return f"{text}; try again" if error.passes and "try again" not in text else text


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
