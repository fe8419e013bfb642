"""What all resources of the workspace have in common: their envelope, who made them and when.

    document = resources.envelope("computes/cpu", {...}, call)
    store.put("computes", "cpu", document | {"_": {"for": "the emulator's own use"}})

A document's `_` is the emulator's own: the gateway leaves it out of every answer.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from devtools.rehearsal import PRINCIPAL, workspace_id
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, WireError

#: The resource provider's name, with which the types of its resources begin.
PROVIDER = "Microsoft.MachineLearningServices"


def now() -> str:
    """The time as resources carry it."""
    return datetime.now(UTC).isoformat()


def caller(call: Call | None) -> tuple[str, str]:
    """Who calls, by the token: a name, and what kind of one it is. None: the service itself."""
    if call is None:
        return PROVIDER, "Application"
    claims = call.claims
    if "appid" in claims:
        return str(claims["appid"]), "Application"
    return str(claims.get("name") or claims.get("oid") or PRINCIPAL), "User"


def system_data(call: Call | None, before: Document | None = None) -> dict[str, str]:
    """Who made a resource and who changed it last; `before` is the resource as it was."""
    name, kind = caller(call)
    changed = {"lastModifiedAt": now(), "lastModifiedBy": name, "lastModifiedByType": kind}
    made = {"createdAt": changed["lastModifiedAt"], "createdBy": name, "createdByType": kind}
    return made | ((before or {}).get("systemData") or {}) | changed


def envelope(tail: str, properties: dict[str, Any], call: Call | None, before: Document | None = None) -> Document:
    """A resource of the workspace, such as `environments/name/versions/1`, around its properties.

    `call` is the call that makes or changes it, None where the service does so; `before`: the resource as it was.
    """
    parts = tail.split("/")
    return {
        "id": workspace_id(tail),
        "name": parts[-1],
        "type": "/".join([PROVIDER, "workspaces", *parts[::2]]),
        "properties": properties,
        "systemData": system_data(call, before),
    }


def sent_properties(call: Call) -> dict[str, Any]:
    """`properties` of the body; raises WireError when there are none."""
    properties = call.body.get("properties") if isinstance(call.body, dict) else None
    if not isinstance(properties, dict):
        raise WireError(400, "UserError", "The request body must be a JSON object with an object named properties.")
    return properties


def shown(document: Document) -> Document:
    """A document as clients see it."""
    return {key: value for key, value in document.items() if key != "_"}
