"""The registry's own tokens: a refresh token for one of Entra's, an access token for a refresh token.

refresh = tokens.refresh(store)
access = tokens.access(store, refresh, "repository:phikit-runtime:pull")
tokens.allowed(rehearsal, f"Bearer {access}")
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from devtools.rehearsal.identity import tokens
from devtools.rehearsal.store import Store

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

REFRESH = "registry-refresh"
ACCESS = "registry-access"
#: The user name that goes with a refresh token as password.
NOBODY = "00000000-0000-0000-0000-000000000000"
#: Seconds that a refresh token is good for.
REFRESH_LIFE = 3 * 3600


def refresh(store: Store) -> str:
    """A refresh token, which may be had for a token of Entra's, and is a password too."""
    return tokens.issue(store, REFRESH, seconds=REFRESH_LIFE)


def access(store: Store, refresh_token: str, scope: str) -> str | None:
    """An access token for what the scope names; None: the refresh token is none."""
    if not _good(store, refresh_token, REFRESH):
        return None
    return tokens.issue(store, ACCESS, scope=scope)


def login(store: Store) -> tuple[str, str]:
    """User and password for a Docker engine."""
    return NOBODY, refresh(store)


def allowed(rehearsal: Rehearsal, authorization: str | None) -> bool:
    """Whether an Authorization header lets its sender at the images."""
    scheme, _, token = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and _good(rehearsal.store, token.strip(), ACCESS)


def _good(store: Store, token: str, audience: str) -> bool:
    claims = tokens.read(store, token)
    return claims is not None and claims["aud"] == audience and claims["exp"] > time.time()
