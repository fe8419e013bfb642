"""The registry's sign-in: /oauth2/exchange and /oauth2/token, as Azure's registry has them."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qsl

from devtools.rehearsal import TENANT
from devtools.rehearsal.identity import tokens as identity_tokens
from devtools.rehearsal.registry import tokens
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, Route, WireError

HOST = "localhost"


def exchange(call: Call) -> Document:
    """A refresh token for an access token of Entra's (grant_type access_token)."""
    form = _form(call)
    if form.get("grant_type") not in ("access_token", "access_token_refresh_token"):
        raise _refused(400, "UNSUPPORTED", f"grant_type {form.get('grant_type')!r} is not supported")
    if form.get("tenant", TENANT).lower() != TENANT:
        raise _refused(401, "UNAUTHORIZED", f"tenant {form['tenant']} is not this registry's")
    try:
        identity_tokens.check(call.rehearsal.store, f"Bearer {form.get('access_token', '')}", identity_tokens.REGISTRY)
    except WireError as error:
        raise _refused(401, "UNAUTHORIZED", f"authentication required: {error.message}") from error
    return {"refresh_token": tokens.refresh(call.rehearsal.store)}


def token(call: Call) -> Document:
    """An access token for a refresh token, sent as a form or as a password."""
    form = _form(call) or dict(call.query)
    password = form.get("refresh_token") or form.get("password") or _password(call.headers.get("authorization", ""))
    access = tokens.access(call.rehearsal.store, password, form.get("scope", ""))
    if access is None:
        raise _refused(401, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization")
    return {"access_token": access, "token": access, "expires_in": identity_tokens.LIFE}


def _form(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.content.decode(errors="replace"), keep_blank_values=True))


def _password(authorization: str) -> str:
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(text).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _refused(status: int, code: str, message: str) -> RegistryError:
    return RegistryError(status, code, message)


class RegistryError(WireError):
    """A refusal in the shape that registries have for them."""

    def answer(self) -> Answer:
        """A list of errors."""
        return Answer(self.status, {"errors": [{"code": self.code, "message": self.message}]}, self.headers)


ROUTES = [
    Route("POST", HOST, "/oauth2/exchange", exchange, asks_token=False),
    Route("POST", HOST, "/oauth2/token", token, asks_token=False),
    Route("GET", HOST, "/oauth2/token", token, asks_token=False),
]
