"""The tutorial's contract: POST /score with `input_data` and `params`, answered with a JSON list.

    curl --silent http://127.0.0.1:5001/score --header 'Content-Type: application/json' \
        --data '{"input_data": ["Who founded Microsoft?"], "params": {"temperature": 0.7, "max_new_tokens": 128}}'
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter

from serving.bodies import Params, ScoreRequest
from serving.prompts import of_params
from serving.service import Service


def routes(service: Service, responses: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The route over a service; `responses` documents the refusals."""
    router = APIRouter(responses=responses)

    @router.post("/score")
    async def score(request: ScoreRequest) -> list[str]:
        """Answer each text, or the one conversation."""
        return await answers(service, request.conversations(), request.params, "input_data")

    return router


async def answers(
    service: Service, conversations: Sequence[Sequence[Mapping[str, str]]], params: Params, field: str
) -> list[str]:
    """The answers to some conversations, in order; with `return_full_text` each after the question it answers.

    Raises:
        Refused: one cannot be answered, so none is.
    """
    generations = service.open(of_params(service, conversations, params, field))
    try:
        texts = await asyncio.gather(*(generation.whole() for generation in generations))
    finally:
        for generation in generations:
            generation.close()
    if params.return_full_text:
        return [f"{chat[-1]['content']} {text}" for chat, text in zip(conversations, texts, strict=True)]
    return list(texts)
