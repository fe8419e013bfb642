"""Ways to a token: an application's secret or federated token, a refresh token, a device code.

    token(store, tenant, {"grant_type": "client_credentials", "client_id": ..., "client_secret": ..., "scope": ...})

Refusals carry the code and the words that Entra would use (AADSTS...), because clients show these.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from devtools.rehearsal import CLIENT, LOGIN_HOST, PRINCIPAL, TENANT
from devtools.rehearsal.identity import tokens
from devtools.rehearsal.store import Document, Store

DEVICE_CODES = "device-codes"
#: Names that stand for whichever tenant the account belongs to.
ANY_TENANT = ("common", "organizations")
#: What a token is for where the client names nothing else: Microsoft Graph.
GRAPH = "00000003-0000-0000-c000-000000000000"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE_GRANTS = ("urn:ietf:params:oauth:grant-type:device_code", "device_code")
#: Seconds that a refresh token and a device code hold, and that a client waits before it asks again for the latter.
REFRESH_LIFE = 90 * 24 * 3600
CODE_LIFE = 900
INTERVAL = 1
#: What a refresh token is for.
REFRESH = "refresh"

Form = Mapping[str, str]


class SignInError(Exception):
    """What the sign-in service refuses with."""

    def __init__(self, number: int, error: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.number, self.error, self.message, self.status = number, error, message, status

    def body(self) -> Document:
        """As it is sent."""
        trace = str(uuid.uuid4())
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.number}: {self.message} Trace ID: {trace} Correlation ID: {trace} "
            f"Timestamp: {now}",
            "error_codes": [self.number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": trace,
            "error_uri": f"https://{LOGIN_HOST}/error?code={self.number}",
        }


def known_tenant(name: str) -> None:
    """Raises SignInError for a tenant that is not there."""
    if name.lower() not in (TENANT, *ANY_TENANT):
        raise SignInError(
            90002,
            "invalid_request",
            f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the "
            "correct cloud. Check with your subscription administrator, this may happen if there are no active "
            "subscriptions for the tenant.",
        )


def token(store: Store, tenant: str, form: Form) -> Document:
    """Answer a request for a token.

    Raises:
        SignInError: tenant, application, secret, code or grant is not what it has to be.
    """
    known_tenant(tenant)
    grant = _field(form, "grant_type")
    grants: dict[str, Callable[[Store, Form], Document]] = {
        "client_credentials": _by_application,
        "refresh_token": _by_refresh_token,
        **dict.fromkeys(DEVICE_GRANTS, _by_device_code),
    }
    if grant not in grants:
        raise SignInError(70003, "unsupported_grant_type", f"The app requested an unsupported grant type '{grant}'.")
    return grants[grant](store, form)


def device_code(store: Store, tenant: str, form: Form) -> Document:
    """Begin a sign-in with a device code; somebody is taken to have entered it by the second time it is asked for."""
    known_tenant(tenant)
    client, code = _field(form, "client_id"), secrets.token_urlsafe(48)
    user_code = "".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ23456789") for _ in range(9))
    store.put(DEVICE_CODES, code, {"client": client, "scope": form.get("scope", ""), "asked": 0})
    page = "https://microsoft.com/devicelogin"
    return {
        "user_code": user_code,
        "device_code": code,
        "verification_uri": page,
        "expires_in": CODE_LIFE,
        "interval": INTERVAL,
        "message": f"To sign in, use a web browser to open the page {page} and enter the code {user_code} to "
        "authenticate. (A rehearsal: it is taken as entered.)",
    }


def _by_application(store: Store, form: Form) -> Document:
    client = _field(form, "client_id")
    if client.lower() != CLIENT:
        raise SignInError(
            700016,
            "unauthorized_client",
            f"Application with identifier '{client}' was not found in the directory '{TENANT}'. This can happen if the "
            "application has not been installed by the administrator of the tenant or consented to by any user in the "
            "tenant. You may have sent your authentication request to the wrong tenant.",
        )
    if assertion := form.get("client_assertion"):
        # whose token it is would be for the federation's own issuer to say; there is none here
        if form.get("client_assertion_type") != ASSERTION_TYPE or not assertion.strip():
            raise SignInError(50027, "invalid_client", "JWT token is invalid or malformed.", 401)
    elif not hmac.compare_digest(_field(form, "client_secret").encode(), tokens.secret(store, "client").encode()):
        raise SignInError(
            7000215,
            "invalid_client",
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
            f"not the client secret ID, for a secret added to app '{CLIENT}'.",
            401,
        )
    return _answer(tokens.issue(store, audience(form)))


def _by_refresh_token(store: Store, form: Form) -> Document:
    claims = tokens.read(store, _field(form, "refresh_token"))
    if claims is None or claims["aud"] != REFRESH or claims["exp"] < datetime.now(UTC).timestamp():
        raise SignInError(70008, "invalid_grant", "The provided refresh token has expired due to inactivity.")
    return _for_user(store, form, _field(form, "client_id"))


def _by_device_code(store: Store, form: Form) -> Document:
    # (msal says device_code, older clients code)
    code = form.get("device_code") or _field(form, "code")

    def ask(body: Document) -> Document:
        return body | {"asked": body["asked"] + 1}

    found = store.change(DEVICE_CODES, code, ask)
    if found is None:
        raise SignInError(70000, "invalid_grant", "Provided grant is invalid or malformed.")
    if found["asked"] == 1:
        raise SignInError(70016, "authorization_pending", "OAuth 2.0 device flow error. Authorization is pending.")
    store.delete(DEVICE_CODES, code)
    return _for_user(store, {"scope": found["scope"]} | dict(form), found["client"])


def refresh_token(store: Store) -> str:
    """A refresh token of the user's."""
    return tokens.issue(store, REFRESH, seconds=REFRESH_LIFE, **tokens.as_user())


def audience(form: Form) -> str:
    """What the token is asked for: the resource that `scope` (or, of old, `resource`) names."""
    if resource := form.get("resource"):
        return resource.rstrip("/")
    for scope in form.get("scope", "").split():
        name, _, last = scope.rpartition("/")
        if name and last:
            return name.rstrip("/")
    return GRAPH


def _for_user(store: Store, form: Form, client: str) -> Document:
    user = {"appid": client} | tokens.as_user()
    about = {"preferred_username": tokens.USER, "name": "Rehearsal", "ver": "2.0"}
    about["iss"] = f"https://{LOGIN_HOST}/{TENANT}/v2.0"
    info = json.dumps({"uid": PRINCIPAL, "utid": TENANT}).encode()
    return _answer(tokens.issue(store, audience(form), **user)) | {
        "scope": form.get("scope", ""),
        "refresh_token": refresh_token(store),
        "id_token": tokens.issue(store, client, **about),
        "client_info": base64.urlsafe_b64encode(info).rstrip(b"=").decode(),
    }


def _answer(access: str) -> Document:
    return {
        "token_type": "Bearer",
        "expires_in": tokens.LIFE,
        "ext_expires_in": tokens.LIFE,
        "access_token": access,
    }


def _field(form: Form, name: str) -> str:
    value = form.get(name)
    if not value:
        raise SignInError(
            900144, "invalid_request", f"The request body must contain the following parameter: '{name}'."
        )
    return value
