"""What stands before the plain registry: TLS, and a token for every call below /v2/; bodies are handed on as they come.

A client without a token is sent to /oauth2/token, as Azure's registry does.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from devtools.errors import KitError
from devtools.rehearsal.registry import tokens

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Headers that belong to one connection alone.
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "authorization", "proxy-authorization"}


class Front:
    """An ASGI application: /v2/ leads to the registry, everything else to the gateway."""

    def __init__(self, rehearsal: Rehearsal, gateway: ASGIApp) -> None:
        self._rehearsal, self._gateway = rehearsal, gateway
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not (scope["path"] == "/v2" or scope["path"].startswith("/v2/")):
            await self._gateway(scope, receive, send)
            return
        begun, request = time.monotonic(), Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        await run_in_threadpool(self._note, request, response, time.monotonic() - begun)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if not tokens.allowed(self._rehearsal, request.headers.get("authorization")):
            where = f"localhost:{self._rehearsal.registry_port}"
            challenge = f'Bearer realm="https://{where}/oauth2/token",service="{where}"'
            if wanted := _scope(request):
                challenge += f',scope="{wanted}"'
            return _refused(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
        try:
            upstream = await run_in_threadpool(lambda: self._rehearsal.registry_upstream)
        except KitError as error:
            return _refused(503, "UNAVAILABLE", str(error), {})
        # (made here: it belongs to the loop that runs)
        self._client = self._client or httpx.AsyncClient(timeout=None, trust_env=False)
        headers = [(name, value) for name, value in request.headers.raw if name.decode().lower() not in HOP]
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        address = f"http://127.0.0.1:{upstream}{request.scope['raw_path'].decode()}"
        query = request.scope["query_string"].decode()
        asked = self._client.build_request(
            request.method,
            f"{address}?{query}" if query else address,
            headers=headers,
            content=request.stream() if has_body else None,
        )
        try:
            answer = await self._client.send(asked, stream=True)
        except httpx.HTTPError as error:
            return _refused(503, "UNAVAILABLE", f"the registry does not answer: {error!r}", {})
        response = StreamingResponse(_pieces(answer), answer.status_code)
        # (a HEAD's length is that of the body it does not have)
        response.raw_headers = [(n.lower(), v) for n, v in answer.headers.raw if n.decode().lower() not in HOP]
        return response

    def _note(self, request: Request, response: Response, seconds: float) -> None:
        self._rehearsal.recorder.note(
            method=request.method,
            host=request.headers.get("host", ""),
            path=request.url.path,
            query=request.url.query,
            status=response.status_code,
            seconds=seconds,
            request=(b"", ""),
            response=None if isinstance(response, StreamingResponse) else (bytes(response.body), "application/json"),
        )


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


def _scope(request: Request) -> str:
    """What a token would have to allow."""
    parts = request.url.path.removeprefix("/v2/").split("/")
    ends = [index for index, part in enumerate(parts) if part in ("manifests", "blobs", "tags")]
    if not ends:
        return ""
    actions = "pull" if request.method in ("GET", "HEAD") else "pull,push"
    return f"repository:{'/'.join(parts[: ends[-1]])}:{actions}"


def _refused(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    content = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    told = {"Docker-Distribution-Api-Version": "registry/2.0"} | headers
    return Response(content, status, told, media_type="application/json")
