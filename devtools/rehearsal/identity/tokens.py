"""Tokens: made, signed and read here alone, in the form of Entra's (JWT); and the secret that asks for one.

    tokens.issue(rehearsal.store, tokens.ML)["token"]
    tokens.check(rehearsal.store, headers["authorization"], tokens.CONTROL_PLANE)     # claims, or a WireError 401

They survive a restart, as Azure's do: the key that signs them lies in the store.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from devtools.rehearsal import CLIENT, LOGIN_HOST, PRINCIPAL, TENANT
from devtools.rehearsal.store import Store
from devtools.rehearsal.wire import WireError

KIND = "secrets"
ARM = "https://management.azure.com"
ML = "https://ml.azure.com"
#: What the control plane takes, what the workspace's own services do, and what the registry does.
CONTROL_PLANE = (ARM, "https://management.core.windows.net")
DATA_PLANE = (ML, *CONTROL_PLANE)
REGISTRY = ("https://containerregistry.azure.net", *CONTROL_PLANE)
#: The user that device codes and the Azure CLI sign in.
USER = "rehearsal@example.com"
#: Where a managed identity asks for its tokens, and the name of the secret that it shows.
MANAGED_PATH = "/msi/token"
MANAGED = "managed-identity"
#: Seconds that a token is valid.
LIFE = 3600


def secret(store: Store, name: str) -> str:
    """A random text that belongs to this home, made when it is first asked for."""
    found = store.get(KIND, name) or store.keep(KIND, name, {"value": secrets.token_urlsafe(36)})
    return found["value"]


def issue(store: Store, audience: str, *, seconds: float = LIFE, **claims: Any) -> str:
    """A token of the application for an audience.

    Args:
        audience: `ARM`, `ML`, ... A slash at its end says nothing.
        seconds: how long it is valid.
        claims: further ones, or others: `oid`, `upn`, `tid`, ...
    """
    now = int(time.time())
    body = {
        "aud": audience.rstrip("/"),
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": now,
        "nbf": now,
        "exp": int(now + seconds),
        "tid": TENANT,
        "oid": PRINCIPAL,
        "sub": PRINCIPAL,
        "appid": CLIENT,
        "idtyp": "app",
        "ver": "1.0",
        "uti": uuid.uuid4().hex,
    }
    return _signed(store, body | claims)


def managed_environment(store: Store) -> dict[str, str]:
    """Variables of a place to which the managed identity is assigned, such as a node of a cluster."""
    return {"IDENTITY_ENDPOINT": f"https://{LOGIN_HOST}{MANAGED_PATH}", "IDENTITY_HEADER": secret(store, MANAGED)}


def as_user(version: str = "1.0") -> dict[str, Any]:
    """Claims of a token that stands for the user rather than for the application."""
    return {"idtyp": "user", "upn": USER, "unique_name": USER, "name": "Rehearsal", "scp": "user_impersonation"} | {
        "ver": version
    }


def read(store: Store, token: str) -> dict[str, Any] | None:
    """The claims of a token that was made here, expired or not; None for anything else."""
    content, _, signature = token.rpartition(".")
    if not content or not hmac.compare_digest(_signature(store, content), signature.encode(errors="replace")):
        return None
    return json.loads(_decoded(content.partition(".")[2]))


def check(store: Store, authorization: str | None, audiences: Collection[str]) -> dict[str, Any]:
    """The claims of the token in an Authorization header.

    Raises:
        WireError: 401 as Azure Resource Manager words it: no header, no token of anybody's, another tenant's, one for
            another audience, an expired one.
    """
    if not authorization:
        raise refused("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
    scheme, _, token = authorization.partition(" ")
    claims = read(store, token.strip()) if scheme.lower() == "bearer" else None
    if claims is None:
        raise refused("InvalidAuthenticationToken", "The access token is invalid.")
    if claims["tid"] != TENANT:
        raise refused(
            "InvalidAuthenticationTokenTenant",
            f"The access token is from the wrong issuer 'https://sts.windows.net/{claims['tid']}/'. It must match the "
            f"tenant 'https://sts.windows.net/{TENANT}/' associated with this subscription.",
        )
    if claims["aud"] not in audiences:
        listed = ",".join(f"'{audience}'" for audience in audiences)
        raise refused(
            "InvalidAuthenticationToken",
            f"The access token has been obtained for wrong audience or resource '{claims['aud']}'. It should exactly "
            f"match with one of the allowed audiences {listed}.",
        )
    if claims["exp"] <= time.time():
        raise expired(claims["exp"])
    return claims


def expired(when: float) -> WireError:
    """401 for a token that was valid until then."""
    ended, now = (datetime.fromtimestamp(at, UTC).strftime("%m/%d/%Y %I:%M:%S %p") for at in (when, time.time()))
    return refused(
        "ExpiredAuthenticationToken",
        f"The access token expiry UTC time '{ended}' is earlier than current UTC time '{now}'.",
    )


def refused(code: str, message: str) -> WireError:
    """401 with the challenge that goes with it."""
    told = {"authorization_uri": f"https://{LOGIN_HOST}/{TENANT}", "error": "invalid_token"}
    challenge = "Bearer " + ", ".join(
        f'{name}="{value}"' for name, value in (told | {"error_description": message}).items()
    )
    return WireError(401, code, message, headers={"WWW-Authenticate": challenge})


def _signed(store: Store, body: dict[str, Any]) -> str:
    head = {"typ": "JWT", "alg": "HS256", "kid": "rehearsal"}
    content = ".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (head, body))
    return f"{content}.{_signature(store, content).decode()}"


def _signature(store: Store, content: str) -> bytes:
    key = secret(store, "signing").encode()
    return _encoded(hmac.digest(key, content.encode(errors="replace"), hashlib.sha256)).encode()


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
