"""Conversations as files: /export/chats.jsonl, training data again; /export/preferences.jsonl, of thumbs and choices.

curl http://127.0.0.1:7860/export/chats.jsonl >chats.jsonl && make data SOURCE=chats.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from flows.history import History, Unavailable, export
from flows.page.guard import user_of

#: What each file is made of.
NEEDS = {
    "chats.jsonl": "ask something, and read the answer.",
    "preferences.jsonl": "choose the better one of two answers, or set thumbs on two answers to the same question.",
}


def routes(history: History) -> APIRouter:
    """The routes over a store; each user gets their own conversations alone."""
    router = APIRouter(prefix="/export")

    @router.get("/chats.jsonl")
    def chats(request: Request) -> Response:
        """Every conversation, a line each."""
        return _download("chats.jsonl", export.chats, history, user_of(request))

    @router.get("/preferences.jsonl")
    def preferences(request: Request) -> Response:
        """Every pair of a better and a worse answer, a line each."""
        return _download("preferences.jsonl", export.preferences, history, user_of(request))

    return router


def _download(
    name: str, rows: Callable[[History, str], Iterable[dict[str, Any]]], history: History, user: str
) -> Response:
    lines = (f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows(history, user))
    try:
        # the first line is asked for before the answer begins: what is wrong shows here
        first = next(lines, "")
    except Unavailable as error:
        return PlainTextResponse(f"The conversations cannot be read now: {error}\n", 503)
    if not first:
        return PlainTextResponse(f"There is nothing to export yet: {NEEDS[name]}\n", 404)

    def body() -> Iterator[str]:
        yield first
        yield from lines

    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(body(), media_type="application/jsonl", headers=headers)
