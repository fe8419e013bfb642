"""Answers every call: finds its route, checks who asks and what for, refuses what it was told to, writes it all down.

    gateway = Gateway(rehearsal, routes())
    uvicorn.Config(gateway, ssl_certfile=..., ssl_keyfile=...)

A call that no route answers is refused with 501 NotEmulated, naming itself.
"""

from __future__ import annotations

import importlib
import json
import re
import time
import traceback
import uuid
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import anyio
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from devtools.errors import KitError
from devtools.rehearsal import admission, operations
from devtools.rehearsal.wire import Answer, Call, Late, Route, WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: The resource types, in the order in which they begin again at a start (and end, the other way round).
PACKAGES = (
    "identity",
    "registry",
    "workspaces",
    "storage",
    "assets",
    "computes",
    "jobs",
    "history",
    "tracking",
    "endpoints",
    "scoring",
    "prices",
)
#: Calls that are worked on at the same time.
THREADS = 128


def packages() -> list[ModuleType]:
    """The `routes` module of each resource type."""
    return [importlib.import_module(f"devtools.rehearsal.{name}.routes") for name in PACKAGES]


def routes(modules: Iterable[ModuleType]) -> list[Route]:
    """All that they answer."""
    return [route for module in modules for route in module.ROUTES] + operations.ROUTES


class Gateway:
    """An ASGI application over the routes."""

    def __init__(self, rehearsal: Rehearsal, routes: Iterable[Route]) -> None:
        self._rehearsal = rehearsal
        # a pattern with fewer blanks is meant first: /jobs/{name} before /{rest:path}
        ordered = sorted(routes, key=lambda route: (":path}" in route.path, route.path.count("{")))
        self._routes = [(route, _pattern(route.path)) for route in ordered]
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']}: http alone is answered here")
        request = Request(scope, receive)
        begun = time.monotonic()
        try:
            content = await request.body()
        except ClientDisconnect:
            return
        # (made here: it belongs to the loop that runs)
        self._limiter = self._limiter or anyio.CapacityLimiter(THREADS)
        response = await run_sync(self._answer, request, content, begun, limiter=self._limiter)
        await response(scope, receive, send)

    def find(self, method: str, host: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a call, and what stands in its blanks."""
        for route, pattern in self._routes:
            if route.method == method and _is_host(route.host, host) and (match := pattern.fullmatch(path)):
                return route, {name: unquote(value) for name, value in match.groupdict().items()}
        return None

    def _answer(self, request: Request, content: bytes, begun: float) -> Response:
        host = request.headers.get("host", "").partition(":")[0].lower()
        path = request.scope["raw_path"].decode("ascii", "replace") or "/"
        found = self.find(request.method, host, path)
        try:
            if found is None:
                message = f"{request.method} https://{host}{unquote(path)}: the rehearsal does not know this call"
                raise WireError(501, "NotEmulated", message)
            answer = self._handle(*found, request, host, path, content)
        except WireError as error:
            answer = error.answer()
        except KitError as error:
            # a program that could not be had (the registry, MLflow)
            answer = WireError(503, "ServiceUnavailable", str(error)).answer()
        except Exception as error:
            traceback.print_exc()
            answer = WireError(500, "InternalServerError", f"{type(error).__name__}: {error}").answer()
        response = answer if isinstance(answer, Response) else _response(answer)
        kind = request.headers.get("content-type", "")
        answered = response.headers.get("content-type", "")
        body = getattr(response, "body", None)

        def note() -> None:
            self._rehearsal.recorder.note(
                method=request.method,
                host=host,
                path=unquote(path),
                query=request.url.query,
                status=response.status_code,
                seconds=time.monotonic() - begun,
                request=(content, kind),
                response=None if body is None else (bytes(body), answered),
                emulated=found is not None,
            )

        if isinstance(response, Late):
            response.noted = note
        else:
            note()
        return response

    def _handle(
        self, route: Route, params: dict[str, str], request: Request, host: str, path: str, content: bytes
    ) -> Any:
        headers = {name.lower(): value for name, value in request.headers.items()}
        claims = admission.admit(self._rehearsal, route, params, request.method, host, path, headers)
        return route.handler(
            Call(
                rehearsal=self._rehearsal,
                method=request.method,
                host=host,
                path=unquote(path),
                params=params,
                query=dict(parse_qsl(request.url.query, keep_blank_values=True)),
                headers=headers,
                content=content,
                body=_json(content),
                claims=claims,
            )
        )


def _pattern(path: str) -> re.Pattern[str]:
    """A path with blanks as an expression; names on Azure do not tell upper from lower case."""
    parts = re.split(r"\{(\w+)(:path)?\}", path)
    text = ""
    for index in range(0, len(parts), 3):
        text += re.escape(parts[index])
        if index + 1 < len(parts):
            text += f"(?P<{parts[index + 1]}>{'.*' if parts[index + 2] else '[^/]+'})"
    return re.compile(text, re.IGNORECASE)


def _is_host(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern[2:].lower()
    return host == pattern.lower()


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return None


def _response(answer: Any) -> Response:
    if not isinstance(answer, Answer):
        answer = Answer(200, answer)
    request_id = str(uuid.uuid4())
    headers = {"x-ms-request-id": request_id, "x-ms-correlation-request-id": request_id, **answer.headers}
    if answer.body is None:
        return Response(b"", answer.status, headers)
    content = json.dumps(_public(answer.body), ensure_ascii=False).encode()
    return Response(content, answer.status, headers, media_type="application/json; charset=utf-8")


def _public(body: Any) -> Any:
    """Without what a document keeps for the emulator alone."""
    if isinstance(body, dict):
        return {key: _public(value) for key, value in body.items() if key != "_"}
    if isinstance(body, list):
        return [_public(value) for value in body]
    return body
