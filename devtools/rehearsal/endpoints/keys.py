"""An endpoint's keys and tokens: listed, made anew, and what requests are let in by.

allowed = keys.check(rehearsal, endpoint_document, "Bearer ...")      # raises WireError 401
"""

from __future__ import annotations

import hmac
import time
from typing import TYPE_CHECKING

from devtools.rehearsal.endpoints import wording
from devtools.rehearsal.endpoints.online_endpoints import KIND, check_idle, find, new_key
from devtools.rehearsal.identity import tokens
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

TYPES = ("primary", "secondary")
#: Seconds that an endpoint's own token is valid, and after which a new one is to be asked for.
LIFE, REFRESH = 12 * 3600, 10 * 3600
#: Bodies of 401, as the endpoint's front door writes them: no key that could be read, and a wrong one.
NO_KEY, WRONG_KEY = "key_auth_bad_header_forbidden", "key_auth_access_denied"


def list_keys(call: Call) -> dict[str, str]:
    """Both keys."""
    endpoint = find(call)
    mode = endpoint["properties"]["authMode"]
    if mode != "Key":
        raise wording.user_error(f"Endpoint {endpoint['name']} has no keys: its authentication mode is {mode}.")
    return {"primaryKey": endpoint["_"]["primary"], "secondaryKey": endpoint["_"]["secondary"]}


def regenerate(call: Call) -> Answer:
    """Put a new key in the place of one of them; the other one goes on being valid.

    `keyValue` is what the key becomes. The SDK sends the key that it is already: then a random one is made.
    """
    endpoint = find(call)
    check_idle(endpoint)
    body = call.body if isinstance(call.body, dict) else {}
    which = str(body.get("keyType") or "").lower()
    if which not in TYPES:
        raise wording.user_error(f"keyType {body.get('keyType')!r}: Primary or Secondary.")

    def work() -> None:
        def change(document: Document) -> None:
            wanted = body.get("keyValue")
            fresh = wanted if wanted and wanted != document["_"][which] else new_key()
            document["_"][which] = fresh

        call.rehearsal.store.change(KIND, endpoint["name"], change)

    return call.rehearsal.operations.begin(f"regenerate {which} key of {endpoint['name']}", work)


def token(call: Call) -> dict[str, str | int]:
    """A token for an endpoint whose mode is AMLToken."""
    endpoint = find(call)
    mode = endpoint["properties"]["authMode"]
    if mode != "AMLToken":
        raise wording.user_error(f"Endpoint {endpoint['name']} gives no tokens: its authentication mode is {mode}.")
    now = int(time.time())
    return {
        "accessToken": tokens.issue(call.rehearsal.store, _audience(endpoint), seconds=LIFE),
        "expiryTimeUtc": now + LIFE,
        "refreshAfterTimeUtc": now + REFRESH,
        "tokenType": "Bearer",
    }


def check(rehearsal: Rehearsal, endpoint: Document, authorization: str | None) -> None:
    """Let a request in, or raise WireError 401, whose message is the answer's text."""
    scheme, _, given = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise WireError(401, "Unauthorized", NO_KEY)
    mode = endpoint["properties"]["authMode"]
    if mode == "Key":
        known = [endpoint["_"][which] for which in TYPES]
        # (both are compared, so that the time taken says nothing)
        if not sum(hmac.compare_digest(given.strip().encode(), key.encode()) for key in known):
            raise WireError(401, "Unauthorized", WRONG_KEY)
        return
    try:
        tokens.check(rehearsal.store, authorization, [_audience(endpoint)] if mode == "AMLToken" else [tokens.ML])
    except WireError as error:
        raise WireError(401, "Unauthorized", error.message) from error


def _audience(endpoint: Document) -> str:
    return f"https://{endpoint['name'].lower()}.endpoint"
