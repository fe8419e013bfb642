"""OpenAI's contract: POST /v1/chat/completions, whole or as server-sent events, and the model that is served.

from openai import OpenAI
client = OpenAI(base_url="http://127.0.0.1:5001/v1", api_key="none")
client.chat.completions.create(model="phikit", messages=[{"role": "user", "content": "Who founded Microsoft?"}])
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from serving.answers import error
from serving.bodies import ChatRequest
from serving.call import current
from serving.errors import Refused
from serving.prompts import of_chat
from serving.service import Generation, Service

PATH = "/v1/chat/completions"


class Usage(BaseModel):
    """Tokens, the answer's end token included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Answer(BaseModel):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: Answer
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Completion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Served(BaseModel):
    """The model that is served, and what its export said of its making."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["phikit"] = "phikit"
    metadata: dict[str, str]


class Models(BaseModel):
    """All of them: one."""

    object: Literal["list"] = "list"
    data: list[Served]


def routes(service: Service, facts: dict[str, str], responses: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The routes over a service; `responses` documents the refusals."""
    router = APIRouter(responses=responses)
    name = service.settings.name
    served = Served(id=name, created=int(time.time()), metadata=facts)

    def known(model: str) -> None:
        if model != name:
            raise Refused(404, f"model: the one that is served is called {name}", "model")

    @router.get("/v1/models")
    async def models() -> Models:
        """List the model that is served."""
        return Models(data=[served])

    # (a hub's names have a slash)
    @router.get("/v1/models/{model:path}")
    async def one_model(model: str) -> Served:
        """Describe the model that is served."""
        known(model)
        return served

    @router.post(
        PATH,
        response_model=Completion,
        responses={200: {"content": {"text/event-stream": {"schema": EVENT}}}},
    )
    async def complete(request: ChatRequest) -> Any:
        """Answer a conversation."""
        known(request.model)
        generation = service.open([of_chat(service, request)])[0]
        head = {"id": f"chatcmpl-{current.get().id}", "created": int(time.time()), "model": name}
        if request.stream:
            usage = request.stream_options is not None and request.stream_options.include_usage
            return StreamingResponse(_events(generation, head, usage), media_type="text/event-stream", headers=NO_STORE)
        text = await generation.whole()
        choice = Choice(message=Answer(content=text), finish_reason=generation.finish)
        return Completion(**head, choices=[choice], usage=_usage(generation))

    return router


#: A server-sent event, as OpenAPI before 3.2 describes a stream: by what each part of it is.
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
#: Proxies on the way are to pass each event on as it comes.
NO_STORE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def _events(generation: Generation, head: dict[str, Any], usage: bool) -> AsyncIterator[str]:
    """OpenAI's chunks, the last of them `[DONE]`."""
    head = {**head, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        # with usage asked for, every chunk has the field, and the last one a value
        return _event({**head, "choices": [choice], **({"usage": None} if usage else {})})

    try:
        delta = {"role": "assistant", "content": ""}
        async for piece in generation:
            yield chunk(delta | {"content": piece})
            delta = {}
        yield chunk(delta, generation.finish)
        if usage:
            yield _event({**head, "choices": [], "usage": _usage(generation).model_dump()})
    except Refused as refused:
        # the status has long been sent: clients find the error among the events
        yield _event(error(PATH, refused))
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _usage(generation: Generation) -> Usage:
    prompt, generated = len(generation.prompt.ids), generation.generated
    return Usage(prompt_tokens=prompt, completion_tokens=generated, total_tokens=prompt + generated)
