"""From a request's fields to prompts that the engine takes: template, token limits, sampling.

    of_params(service, [[{"role": "user", "content": "Who founded Microsoft?"}]], Params(), "input_data")

The one place where lengths are checked, so that every route says the same about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from serving.engine import Sampling
from serving.errors import Refused
from serving.service import Prompt, Service

if TYPE_CHECKING:
    from serving.bodies import ChatRequest, Params


def of_chat(service: Service, request: ChatRequest) -> Prompt:
    """The prompt of a chat completion.

    Raises:
        Refused: 400 with the numbers, when prompt and answer do not fit the context.
    """
    if request.max_tokens and request.max_completion_tokens and request.max_tokens != request.max_completion_tokens:
        raise Refused(400, "max_tokens: differs from max_completion_tokens; send one of them", "max_tokens")
    field = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
    ids = service.chat.prompt([message.model_dump() for message in request.messages])
    limit = _limit(service, ids, request.max_completion_tokens or request.max_tokens, field, "messages")
    sampling = Sampling(
        max_tokens=limit,
        temperature=request.temperature or 0.0,
        top_p=1.0 if request.top_p is None else request.top_p,
        # numpy's generators take no negative seeds
        seed=None if request.seed is None else request.seed % 2**64,
    )
    return Prompt(ids, sampling, request.stops())


def of_params(
    service: Service, conversations: Sequence[Sequence[Mapping[str, str]]], params: Params, field: str
) -> list[Prompt]:
    """The prompts of a request with the params of the model's signature, in order.

    Args:
        field: name of the request's field that holds the conversations.

    Raises:
        Refused: 400 with the numbers, when there are too many, or one does not fit the context.
    """
    check_items(service, len(conversations), field)
    # (beside MLflow's `messages` the params stand by themselves)
    limit = "max_new_tokens" if field == "messages" else "params.max_new_tokens"
    prompts = []
    for number, messages in enumerate(conversations):
        where = field if len(conversations) == 1 else f"{field}.{number}"
        ids = service.chat.prompt(messages, where)
        sampling = Sampling(
            max_tokens=_limit(service, ids, params.max_new_tokens, limit, where),
            temperature=params.temperature if params.do_sample else 0.0,
            top_p=params.top_p,
            seed=None if params.seed < 0 else params.seed,
        )
        prompts.append(Prompt(ids, sampling))
    return prompts


def check_items(service: Service, count: int, field: str) -> None:
    """Pass a request with that many conversations.

    Raises:
        Refused: 400 with the numbers, when there are too many.
    """
    if count > service.most_items:
        raise Refused(
            400, f"{field}: {count} items, and one request may have {service.most_items}; send several", field
        )


def _limit(service: Service, ids: Sequence[int], wanted: int | None, field: str, messages: str) -> int:
    """How many tokens may be generated: what was asked for, or what there is room for."""
    context = service.engine.context
    room = context - len(ids)
    if room < 1:
        raise Refused(
            400,
            f"{messages}: {len(ids)} tokens, and with the answer at most {context} are taken; shorten the conversation",
            messages,
        )
    if wanted is None:
        return min(service.settings.max_tokens, room)
    if wanted > room:
        raise Refused(
            400,
            f"{field}: {wanted} tokens after a prompt of {len(ids)} are more than the context of {context}; "
            f"at most {room} are left",
            field,
        )
    return wanted
