"""What every request passes first: key, content type, body limit, JSON, patience with slow bodies; the access log.

    app = Gate(app, settings, metrics)

Plain ASGI. A request's body is read here, whole and bounded, before any route sees it; while the answer is made the
client is watched, and when it hangs up what was generated for it is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Container, Mapping
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access_log import write
from serving.answers import refusal
from serving.call import Call, current
from serving.errors import Refused
from serving.json_body import check
from serving.metrics import Metrics
from serving.settings import Settings

#: Whoever looks after the container asks these, and has no key.
OPEN_PATHS = frozenset({"/ping", "/health", "/ready"})
#: Others are the client's own text, and none of the log's business.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
#: As nginx logs a client that went before its answer.
GONE = 499


class ClientGone(Exception):
    """Nobody is there to take the answer."""


class Gate:
    """The application behind its checks."""

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, routes: Mapping[str, Container[str]]
    ) -> None:
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
        call = Call(scope["method"] if scope["method"] in METHODS else "(unknown)", path)
        current.set(call)
        status = GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", call.id.encode())]
            await send(message)

        try:
            await self._serve(scope, receive, answer, call)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # the time to drain is over (serving/__main__.py); what has begun can only be broken off
            if status == GONE:
                refused = Refused(503, "the server is being stopped; try again", retry_after=10)
                await refusal(call.path, refused)(scope, receive, answer)
        finally:
            call.end()
            write(call, status)
            self._metrics.requests.labels(route=call.path, status=status).inc()
            self._metrics.latency.labels(route=call.path).observe(call.seconds)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        body = None
        try:
            self._check(scope)
            body = await self._body(receive, call)
            if self._takes_body(scope):
                check(body)
        except Refused as refused:
            response = refusal(call.path, refused)
            if body is None:
                # a body that was not read makes the connection useless for another request
                response.headers["Connection"] = "close"
                send = self._lingering(receive, send) if refused.status != 408 else send
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

    def _lingering(self, receive: Receive, send: Send) -> Send:
        """`send` that takes in what still comes before it ends: a client that is sending sees no answer after that."""

        async def linger(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.patience):
                    await _rest(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        return linger

    def _takes_body(self, scope: Scope) -> bool:
        return scope["method"] == "POST" and "post" in self._routes.get(scope["path"], ())

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
        if self._takes_body(scope):
            kind = headers.get("content-type", "").partition(";")
            if kind[0].strip().lower() != "application/json":
                raise Refused(415, "Content-Type: must be application/json")
            options = [part.partition("=") for part in kind[2].lower().split(";")]
            charsets = {value.strip(' "') for name, _, value in options if name.strip() == "charset"}
            if not charsets <= {"utf-8", "utf8"}:
                raise Refused(415, "Content-Type: the charset must be utf-8")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._settings.max_body:
            raise self._too_large()

    async def _body(self, receive: Receive, call: Call) -> bytes:
        body = bytearray()
        while True:
            try:
                # drop by drop it would take for ever
                left = self._settings.deadline - call.seconds
                async with asyncio.timeout(max(0, min(self._settings.patience, left))):
                    message = await receive()
            except TimeoutError:
                told = (
                    f"was not whole within the deadline of {self._settings.deadline:g} s"
                    if left <= self._settings.patience
                    else f"nothing more of it came within {self._settings.patience:g} s"
                )
                raise Refused(408, f"the body: {told}; send it whole") from None
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


async def _rest(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
