"""What every request to the page passes: the login, if there is one, and the headers that keep a browser on this host.

    app.add_middleware(Guard, logins={"ada": "a long password"})

HTTP's own login (Basic): the browser asks for name and password and sends them along; nothing is kept on either side.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The one user where there is no login.
LOCAL = "local"
#: Whoever looks after the container asks these, and has no password.
OPEN_PATHS = frozenset({"/health", "/ready"})
#: Gradio's route for files.
UPLOAD = "/upload"
#: Nothing is loaded from or sent to another host, whatever stands in a message or a library's page. Gradio's own page
#: holds its settings in a script of its own and makes functions of its events' texts.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Guard:
    """The application behind its login. Plain ASGI, so that answers are streamed through.

    Args:
        names: under which the page may be reached without a login, besides localhost and addresses. A page of another
            site whose name leads here all of a sudden must not read conversations.
    """

    def __init__(self, app: ASGIApp, logins: Mapping[str, str], names: Collection[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", *names}
        self._logins = {name.encode(): password.encode() for name, password in logins.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other ASGI events pass, and so do no websockets."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        if refused := self._refused(headers, scope["path"]):
            await refused(scope, receive, answer)
            return
        user = self._user(headers.get("authorization", ""))
        if user is None and scope["path"] not in OPEN_PATHS:
            refusal = PlainTextResponse("A name and a password are needed here.\n", 401)
            # (the charset says how to send what is not ASCII)
            refusal.headers["WWW-Authenticate"] = 'Basic realm="phikit", charset="UTF-8"'
            await refusal(scope, receive, answer)
            return
        scope.setdefault("state", {})["user"] = user
        try:
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            # the page is being stopped; an open tab's stream of events would else never end
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refused(self, headers: Headers, path: str) -> PlainTextResponse | None:
        """The answer to who asks from another site's page, or uploads what nobody here has asked for."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("Another site's page may not ask this one.\n", 403)
        if not self._logins and not self._is_own(host):
            return PlainTextResponse("Not reached under this name; PHIKIT_CHAT_NAMES lists others.\n", 421)
        if path.endswith(UPLOAD):
            return PlainTextResponse("Files are not taken here.\n", 404)
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            # an address cannot be made to lead elsewhere
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _user(self, authorization: str) -> str | None:
        """Who asks; None: somebody with no or a wrong password."""
        if not self._logins:
            return LOCAL
        scheme, _, told = authorization.partition(" ")
        try:
            name, _, password = base64.b64decode(told.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return None
        # a name that is not known takes as long as one that is
        right = hmac.compare_digest(password, self._logins.get(name, b"\0"))
        return name.decode() if scheme.lower() == "basic" and right and name in self._logins else None


def user_of(request: HTTPConnection) -> str:
    """Who asks, as the guard found it."""
    return request.scope["state"]["user"]
