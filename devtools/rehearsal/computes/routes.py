"""Clusters: get, list, make, resize, delete, and the nodes they have.

phikit rehearsal refuse quota        # making one ends with no quota for its family
phikit rehearsal refuse sku          # ... with a VM size that the region does not offer
phikit rehearsal refuse slow         # making, resizing and deleting take their time
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from devtools.rehearsal import MANAGEMENT_HOST, WORKSPACE_PATH, sizes
from devtools.rehearsal.computes import cluster, nodes
from devtools.rehearsal.endpoints import capacity
from devtools.rehearsal.operations import INTERRUPTED
from devtools.rehearsal.resources import now, sent_properties, system_data
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, Route, WireError, missing, page

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

KIND = "computes"


def get(call: Call) -> Document:
    """One cluster as it stands."""
    return _seen(call.rehearsal, _found(call))


def list_all(call: Call) -> Document:
    """All clusters."""
    return page([_seen(call.rehearsal, one) for _, one in call.rehearsal.store.all(KIND)])


def put(call: Call) -> Answer:
    """Make a cluster, or change one."""
    rehearsal, name = call.rehearsal, call.params["name"]
    cluster.check_name(name)
    sent = sent_properties(call)
    there = rehearsal.store.get(KIND, name)
    _check_settled(there)
    before = there if there and there["properties"]["provisioningState"] == "Succeeded" else None
    document = rehearsal.store.put(KIND, name, cluster.build(call, sent, before))
    seconds = _delay(rehearsal)

    def provision() -> None:
        _pause(seconds)
        try:
            size = cluster.check_size(document, refused=rehearsal.refusals.take("sku") is not None)
            _check_quota(rehearsal, document, size)
        except WireError as error:
            _settle(rehearsal, name, "Failed", [error.answer().body])
            raise
        _settle(rehearsal, name, "Succeeded")

    return rehearsal.operations.begin(
        f"create compute {name}", provision, body=_seen(rehearsal, document), status=200 if there else 201
    )


def patch(call: Call) -> Answer:
    """Change how many nodes a cluster may have, and when they go."""
    rehearsal = call.rehearsal
    name = _found(call)["name"]
    _check_settled(_found(call))
    inner = sent_properties(call).get("properties") or {}
    scale = cluster.scale_settings(inner.get("scaleSettings"))

    def resize(document: Document) -> None:
        document["properties"]["properties"]["scaleSettings"] = scale
        document["properties"]["provisioningState"] = "Updating"
        document["systemData"] = system_data(call, document)

    document = rehearsal.store.change(KIND, name, resize)
    seconds = _delay(rehearsal)

    def work() -> None:
        _pause(seconds)
        _settle(rehearsal, name, "Succeeded")

    return rehearsal.operations.begin(f"update compute {name}", work, body=_seen(rehearsal, document or {}), status=200)


def delete(call: Call) -> Answer:
    """Delete a cluster."""
    rehearsal, name = call.rehearsal, call.params["name"]
    if call.query.get("underlyingResourceAction") not in ("Delete", "Detach"):
        raise WireError(400, "BadRequest", "The query needs underlyingResourceAction: Delete or Detach.")
    if rehearsal.store.get(KIND, name) is None:
        return Answer(204)
    seconds = _delay(rehearsal)
    rehearsal.store.change(KIND, name, lambda one: one["properties"].update(provisioningState="Deleting"))

    def work() -> None:
        _pause(seconds)
        rehearsal.store.delete(KIND, name)

    return rehearsal.operations.begin(f"delete compute {name}", work)


def list_nodes(call: Call) -> dict[str, Any]:
    """The cluster's nodes, with the jobs that they run."""
    return {"nodes": nodes.describe(call.rehearsal.store, _found(call))}


def resume(rehearsal: Rehearsal) -> None:
    """Bring to its end what was under way when the emulator stopped."""
    for name, document in rehearsal.store.all(KIND):
        state = document["properties"]["provisioningState"]
        if state == "Deleting":
            rehearsal.store.delete(KIND, name)
        elif state == "Creating":
            error = WireError(400, INTERRUPTED, f"create compute {name}: the service was restarted")
            _settle(rehearsal, name, "Failed", [error.answer().body])
        elif state not in ("Succeeded", "Failed"):
            # (the new size was taken up when it was asked for)
            _settle(rehearsal, name, "Succeeded")


def _check_quota(rehearsal: Rehearsal, document: Document, size: sizes.Size) -> None:
    """Raise WireError when the quota has no room for the cluster's first nodes beside those of the others."""
    low = nodes.is_low_priority(document)
    limit = sizes.TOTAL_LOW_PRIORITY if low else size.family.limit
    if rehearsal.refusals.take("quota") is not None:
        limit = 0
    cores = nodes.cores_in_use(rehearsal.store)
    if low:
        # low-priority nodes of all families share one quota
        used = sum(count for (_, is_low), count in cores.items() if is_low)
    else:
        # clusters and deployments share the family's
        used = cores[size.family.name, False] + capacity.cores_in_use(rehearsal.store)[size.family.name]
    mine = size.cores * len(nodes.listing(rehearsal.store, document))
    cluster.check_quota(document, size, limit, max(0, used - mine))


def _check_settled(document: Document | None) -> None:
    """Raise WireError while something else is being done to the cluster."""
    if document and document["properties"]["provisioningState"] not in ("Succeeded", "Failed"):
        state = document["properties"]["provisioningState"]
        raise WireError(409, "Conflict", f"Compute {document['name']} is {state}; wait until that has ended.")


def _settle(rehearsal: Rehearsal, name: str, state: str, errors: list[dict[str, Any]] | None = None) -> None:
    def change(document: Document) -> None:
        document["properties"] |= {"provisioningState": state, "provisioningErrors": errors, "modifiedOn": now()}

    rehearsal.store.change(KIND, name, change)


def _delay(rehearsal: Rehearsal) -> float:
    """Seconds that what is asked for takes longer than it needs."""
    slow = rehearsal.refusals.take("slow")
    return 0 if slow is None else float(slow["seconds"])


def _pause(seconds: float) -> None:
    """Let time pass: that is what is being emulated."""
    threading.Event().wait(seconds)


def _found(call: Call) -> Document:
    name = call.params["name"]
    document = call.rehearsal.store.get(KIND, name)
    if document is None:
        raise missing("Compute", name)
    return document


def _seen(rehearsal: Rehearsal, document: Document) -> Document:
    """The cluster as clients see it, with its nodes as they are at this moment."""
    properties = document["properties"]
    inner = properties["properties"] | {"allocationStateTransitionTime": properties["modifiedOn"]}
    if properties["provisioningState"] == "Succeeded":
        inner |= nodes.counts(rehearsal.store, document)
    return document | {"properties": properties | {"properties": inner}}


_ALL = WORKSPACE_PATH + "/computes"
_ONE = _ALL + "/{name}"
ROUTES = [
    Route("GET", MANAGEMENT_HOST, _ALL, list_all),
    Route("GET", MANAGEMENT_HOST, _ONE, get),
    Route("PUT", MANAGEMENT_HOST, _ONE, put),
    Route("PATCH", MANAGEMENT_HOST, _ONE, patch),
    Route("DELETE", MANAGEMENT_HOST, _ONE, delete),
    Route("POST", MANAGEMENT_HOST, _ONE + "/listNodes", list_nodes),
]
