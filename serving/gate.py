"""What every request passes first: key, body limit, content type, patience with slow clients, and the access log.

    app = Gate(app, settings, metrics)

Plain ASGI. A request's body is read here, whole and bounded, before any route sees it; while the answer is made the
client is watched, and when it hangs up what was generated for it is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access_log import write
from serving.answers import refusal
from serving.call import Call, current
from serving.errors import Refused
from serving.metrics import Metrics
from serving.settings import Settings

#: Whoever looks after the container asks these, and has no key.
OPEN_PATHS = frozenset({"/ping", "/health", "/ready"})


class ClientGone(Exception):
    """Nobody is there to take the answer."""


class Gate:
    """The application behind its checks."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._routes = routes
        self._keys = [key.encode() for key in settings.key]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request; other ASGI events pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # an unknown path is the client's text: neither a label of the metrics nor a word of the log
        path = scope["path"] if scope["path"] in self._routes else "(unknown)"
        call = Call(scope["method"], path)
        current.set(call)
        status = 499  # as nginx logs a client that went before its answer

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", call.id.encode())]
            try:
                await asyncio.wait_for(send(message), self._settings.patience)
            except TimeoutError:
                raise ClientGone from None

        try:
            await self._serve(scope, receive, answer, call)
        except ClientGone:
            pass
        finally:
            call.end()
            write(call, status)
            self._metrics.requests.labels(route=call.path, status=status).inc()
            self._metrics.latency.labels(route=call.path).observe(call.seconds)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        try:
            self._check(scope)
            body = await self._body(scope, receive)
        except Refused as refused:
            # a body that was not read makes the connection useless for another request
            response = refusal(call.path, refused)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        handed = False

        async def replay() -> Message:
            nonlocal handed
            if handed:
                # the watcher has the real events; whoever asks again waits for a disconnect that ends its task anyway
                await asyncio.Event().wait()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        work = asyncio.create_task(self._app(scope, replay, send))
        watcher = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                call.end()
                work.cancel()
        finally:
            watcher.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        names = {name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)}
        if names:
            raise Refused(
                400,
                "the query string: no route takes one; parameters belong into the body, a key into the header "
                "Authorization: Bearer …",
            )
        if self._keys and scope["path"] not in OPEN_PATHS:
            scheme, _, told = headers.get("authorization", "").partition(" ")
            # every key is compared, so that the time says nothing about which one was near
            matches = [hmac.compare_digest(told.strip().encode("latin-1", "replace"), key) for key in self._keys]
            if scheme.lower() != "bearer" or not any(matches):
                raise Refused(401, "Authorization: a valid key is needed, as Bearer …")
        if scope["method"] == "POST" and scope["path"] in self._routes:
            kind = headers.get("content-type", "").partition(";")
            if kind[0].strip().lower() != "application/json":
                raise Refused(415, "Content-Type: must be application/json")
            charset = [part.partition("=")[2].strip(' "').lower() for part in kind[2].split(";") if "charset" in part]
            if charset and charset[0] not in ("utf-8", "utf8"):
                raise Refused(415, "Content-Type: the charset must be utf-8")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._settings.max_body:
            raise self._too_large()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            try:
                message = await asyncio.wait_for(receive(), self._settings.patience)
            except TimeoutError:
                raise Refused(
                    408, f"the body: nothing more of it came within {self._settings.patience:g} s; send it whole"
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > self._settings.max_body:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> Refused:
        self._metrics.refused.labels(reason="body").inc()
        return Refused(413, f"the body: is larger than {self._settings.max_body} bytes; send less at a time")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
