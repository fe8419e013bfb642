"""The calls of login.microsoftonline.com: what the service is, what the tenant is, tokens, device codes."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from urllib.parse import parse_qsl

from devtools.rehearsal import CLIENT, LOGIN_HOST, TENANT
from devtools.rehearsal.identity import flows, tokens
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, Route

BASE = f"https://{LOGIN_HOST}"


def instance(call: Call) -> Document:
    """Which hosts are one sign-in service."""
    return {
        "tenant_discovery_endpoint": f"{BASE}/{TENANT}/v2.0/.well-known/openid-configuration",
        "api-version": "1.1",
        "metadata": [
            {"preferred_network": LOGIN_HOST, "preferred_cache": "login.windows.net", "aliases": [LOGIN_HOST]}
        ],
    }


def tenant(call: Call) -> Document | Answer:
    """Where the tenant's tokens are to be had."""
    name = call.params["tenant"]
    try:
        flows.known_tenant(name)
    except flows.SignInError as error:
        return Answer(error.status, error.body())
    issuer = "{tenantid}" if name.lower() in flows.ANY_TENANT else TENANT
    return {
        "issuer": f"{BASE}/{issuer}/v2.0",
        "authorization_endpoint": f"{BASE}/{name}/oauth2/v2.0/authorize",
        "token_endpoint": f"{BASE}/{name}/oauth2/v2.0/token",
        "device_authorization_endpoint": f"{BASE}/{name}/oauth2/v2.0/devicecode",
        "jwks_uri": f"{BASE}/{name}/discovery/v2.0/keys",
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "subject_types_supported": ["pairwise"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "tenant_region_scope": "NA",
        "cloud_instance_name": "microsoftonline.com",
    }


def user(call: Call) -> Document:
    """What kind of account a name is."""
    return {
        "ver": "1.0",
        "account_type": "Managed",
        "domain_name": tokens.USER.partition("@")[2],
        "cloud_instance_name": "microsoftonline.com",
        "cloud_audience_urn": "urn:federation:MicrosoftOnline",
    }


def token(call: Call) -> Answer:
    """A token for whichever grant."""
    return _answered(lambda: flows.token(call.rehearsal.store, call.params["tenant"], _form(call)))


def device_code(call: Call) -> Answer:
    """The beginning of a sign-in on another device."""
    return _answered(lambda: flows.device_code(call.rehearsal.store, call.params["tenant"], _form(call)))


def managed(call: Call) -> Document | Answer:
    """A token of the managed identity, for whoever runs where it is assigned and has its header."""
    known = tokens.secret(call.rehearsal.store, tokens.MANAGED)
    header = call.headers.get("x-identity-header", "")
    resource = call.query.get("resource", "").removesuffix("/.default")
    if not hmac.compare_digest(header.encode(), known.encode()) or not resource:
        return Answer(
            400, {"statusCode": 400, "message": "No managed identity: X-IDENTITY-HEADER or resource is wrong"}
        )
    token = tokens.issue(call.rehearsal.store, resource)
    return {
        "access_token": token,
        "expires_on": str(int(time.time()) + tokens.LIFE),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": call.query.get("client_id", CLIENT),
    }


def _form(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.content.decode(errors="replace"), keep_blank_values=True))


def _answered(work: Callable[[], Document]) -> Answer:
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    try:
        return Answer(200, work(), headers)
    except flows.SignInError as error:
        return Answer(error.status, error.body(), headers)


def _open(method: str, path: str, handler: Callable[[Call], Document | Answer]) -> Route:
    """A route that asks for no token: it is where they come from."""
    return Route(method, LOGIN_HOST, path, handler, asks_token=False)


ROUTES = [
    _open("GET", "/common/discovery/instance", instance),
    _open("GET", "/common/userrealm/{user}", user),
    _open("GET", tokens.MANAGED_PATH, managed),
    _open("GET", "/{tenant}/v2.0/.well-known/openid-configuration", tenant),
    _open("GET", "/{tenant}/.well-known/openid-configuration", tenant),
    _open("POST", "/{tenant}/oauth2/v2.0/token", token),
    _open("POST", "/{tenant}/oauth2/token", token),
    _open("POST", "/{tenant}/oauth2/v2.0/devicecode", device_code),
]
