"""A request on its way to a container and its answer on the way back, piece by piece as it comes.

return Forwarded(call, endpoint)      # a response: what it is made of is known once it is sent

Any answer of a container other than 200 becomes 424, as the endpoint's front door has it, with the container's status
in a header; its body goes through as it is.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from urllib.parse import quote, urlencode
from weakref import WeakKeyDictionary

import httpx
from anyio.to_thread import run_sync
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from devtools.rehearsal.endpoints.fleet import Fleet, fleet_of
from devtools.rehearsal.endpoints.plan import SCORE
from devtools.rehearsal.endpoints.replicas import Refused, Replicas
from devtools.rehearsal.scoring import routing
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, Late, WireError

#: Headers that belong to one connection alone, and the key, which is the front door's.
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "authorization"}
HUNG_UP = 499
#: Headers of the front door's own.
REASON = "ms-azureml-model-error-reason"
MODEL_STATUS = "ms-azureml-model-error-statuscode"
MODEL_TIME = "ms-azureml-model-time"
#: Seconds for a connection to a container.
CONNECT = 5.0
#: Seconds that a request waits for a deployment that is started again with the emulator.
RESTART = 180.0
#: How often another place is looked for, when one went in between.
ATTEMPTS = 10
_CLIENTS: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
#: Copies of requests, for mirrored traffic, that are on their way.
_COPIES: set[asyncio.Future[None]] = set()


class Gone(Exception):
    """The container ended, or its time did, in the middle of an answer: the connection is broken off."""


class Forwarded(Late, StreamingResponse):
    """The answer to one request."""

    def __init__(self, call: Call, endpoint: Document) -> None:
        # (that of a client who went away: nobody else sees it)
        super().__init__(iter(()), HUNG_UP)
        self._call, self._endpoint = call, endpoint
        self._fleet = fleet_of(call.rehearsal)
        self._deployment = ""
        self._model_status: int | None = None
        self._lease = ExitStack()
        self._deadline: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the container and hand its answer on; a client that goes away ends both."""
        begun = time.monotonic()
        upstream: httpx.Response | None = None
        if shadow := routing.mirror(self._endpoint):
            copying = asyncio.ensure_future(_copy(self._fleet, self._call, self._endpoint["name"], shadow))
            # (a task that nothing refers to may be forgotten half-way)
            _COPIES.add(copying)
            copying.add_done_callback(_COPIES.discard)
        reaching = asyncio.ensure_future(self._reach())
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait([reaching, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not reaching.done():
                return
            leaving.cancel()
            try:
                upstream = reaching.result()
                self._answer(upstream, begun)
            except WireError as error:
                self._refuse(error)
            await super().__call__(scope, receive, send)
        except Gone:
            # without its last piece the answer is no whole one, and its connection is closed
            return
        finally:
            reaching.cancel()
            leaving.cancel()
            await asyncio.gather(reaching, leaving, return_exceptions=True)
            if upstream:
                await upstream.aclose()
            self._lease.close()
            await run_sync(self._note, time.monotonic() - begun)

    async def _reach(self) -> httpx.Response:
        """The container's answer up to its body; raises WireError where there is none."""
        loop = asyncio.get_running_loop()
        tried: set[str] = set()
        for _ in range(ATTEMPTS):
            replicas = await self._place()
            self._deadline = self._deadline or loop.time() + replicas.plan.timeout
            try:
                address = self._lease.enter_context(replicas.admit(frozenset(tried)))
            except Refused as refused:
                if refused.reason == Refused.RETIRED:
                    continue
                if refused.reason == Refused.BUSY:
                    raise WireError(429, "", "", headers={REASON: "too_many_pending_request"}) from refused
                raise _not_ready("no healthy upstream") from refused
            try:
                async with asyncio.timeout_at(self._deadline):
                    return await _client().send(_request(self._call, replicas, address), stream=True)
            except TimeoutError as error:
                raise WireError(408, "", "upstream request timeout") from error
            except httpx.ConnectError:
                # it heard nothing of the request: another one may
                self._lease.close()
                tried.add(address)
            except httpx.HTTPError as error:
                raise _not_ready(f"disconnect/reset before headers: {error or type(error).__name__}", 502) from error
        raise _not_ready("no healthy upstream")

    async def _place(self) -> Replicas:
        """The deployment that the request goes to, by the traffic of this moment."""
        call = self._call
        name = self._endpoint["name"]
        found = call.rehearsal.store.get("endpoints", name) or self._endpoint
        names = []
        if routing.HEADER in call.headers:
            names = [one["name"] for _, one in call.rehearsal.store.all("deployments", f"{name}/")]
        self._deployment = routing.choose(found, call.headers, names)
        serving = self._fleet.serving(name, self._deployment)
        if serving is None and (coming := self._fleet.starting_again(name, self._deployment)):
            # the emulator was restarted a moment ago, and its deployments with it
            await asyncio.wait([asyncio.wrap_future(coming.first_ready)], timeout=RESTART)
            serving = self._fleet.serving(name, self._deployment) or coming.replicas
        if serving is None:
            raise _not_ready("no healthy upstream")
        return serving

    def _answer(self, upstream: httpx.Response, begun: float) -> None:
        self._model_status = upstream.status_code
        own = {
            "azureml-model-deployment": self._deployment,
            "azureml-model-session": self._deployment,
            MODEL_TIME: str(round((time.monotonic() - begun) * 1000)),
        }
        self.status_code = upstream.status_code
        if upstream.status_code != 200:
            self.status_code = 424
            own |= {REASON: "model_error", MODEL_STATUS: str(upstream.status_code)}
        # (the date is that of the front door's own server)
        gone = HOP | {"date"}
        kept = [(name.lower(), value) for name, value in upstream.headers.raw if name.decode().lower() not in gone]
        self.raw_headers = kept + _encoded(own | self._traced())
        self.body_iterator = self._pieces(upstream)

    async def _pieces(self, upstream: httpx.Response) -> AsyncIterator[bytes]:
        pieces = upstream.aiter_raw()
        while True:
            try:
                # (around each piece: what is done with it is in the hands of another)
                async with asyncio.timeout_at(self._deadline):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except (TimeoutError, httpx.HTTPError) as error:
                raise Gone from error
            yield piece

    def _refuse(self, error: WireError) -> None:
        content = error.message.encode()
        self.status_code = error.status
        told = {"content-type": "text/plain", "content-length": str(len(content))} | error.headers
        self.raw_headers = _encoded(told | self._traced())
        self.body_iterator = _once(content)

    def _traced(self) -> dict[str, str]:
        told = self._call.headers.get("x-ms-client-request-id")
        return {"x-request-id": str(uuid.uuid4())} | ({"x-ms-client-request-id": told} if told else {})

    def _note(self, seconds: float) -> None:
        self._fleet.counters.note(
            self._endpoint["name"],
            self._deployment,
            status=self.status_code,
            model_status=self._model_status,
            seconds=seconds,
        )
        if self.noted:
            self.noted()


def _request(call: Call, replicas: Replicas, address: str) -> httpx.Request:
    """The call as the container gets it."""
    path = replicas.plan.scoring if call.path == SCORE else quote(call.path, safe="/:@!$&'()*+,;=~")
    query = f"?{urlencode(call.query)}" if call.query else ""
    headers = {name: value for name, value in call.headers.items() if name not in HOP | {"content-length"}}
    whole = f"http://{address}{path}{query}"
    return _client().build_request(call.method, whole, headers=headers, content=call.content)


async def _copy(fleet: Fleet, call: Call, endpoint: str, deployment: str) -> None:
    """Send a request to a deployment whose answer nobody gets: it is counted, and no more."""
    replicas = fleet.serving(endpoint, deployment)
    if replicas is None:
        return
    begun, status = time.monotonic(), None
    try:
        with replicas.admit() as address:
            async with asyncio.timeout(replicas.plan.timeout):
                status = (await _client().send(_request(call, replicas, address))).status_code
    except (Refused, TimeoutError, httpx.HTTPError):
        # whatever befalls a copy, the request itself is none the worse for it
        pass
    answered = 200 if status == 200 else 424
    took = time.monotonic() - begun
    fleet.counters.note(endpoint, deployment, status=answered, model_status=status, seconds=took)


def _client() -> httpx.AsyncClient:
    """The loop's client. No connection is kept: a container may close one just as it is used again."""
    loop = asyncio.get_running_loop()
    if loop not in _CLIENTS:
        _CLIENTS[loop] = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            verify=False,
        )
    return _CLIENTS[loop]


def _not_ready(text: str, status: int = 503) -> WireError:
    """No container takes the request: 424 too."""
    return WireError(424, "", text, headers={REASON: "model_not_ready", MODEL_STATUS: str(status)})


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
