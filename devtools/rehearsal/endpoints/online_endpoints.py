"""Endpoints: made, changed (traffic above all), listed, deleted with all their deployments.

Their documents are of kind `endpoints`, by name; `_` holds their keys.
"""

from __future__ import annotations

import secrets
import string
import threading
import uuid
from typing import Any

from devtools.rehearsal import LOCATION, SCORING_SUFFIX, TENANT, resource_id
from devtools.rehearsal.endpoints import validation, wording
from devtools.rehearsal.endpoints.fleet import fleet_of
from devtools.rehearsal.resources import envelope, sent_properties, system_data
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, WireError, missing, page

KIND, DEPLOYMENTS = "endpoints", "deployments"
#: States in which something is being done.
BUSY = ("Creating", "Updating", "Deleting")


def find(call: Call) -> Document:
    """The endpoint that the path names; raises WireError where there is none."""
    found = call.rehearsal.store.get(KIND, call.params["endpoint"])
    if found is None:
        raise missing("OnlineEndpoint", call.params["endpoint"])
    return found


def get(call: Call) -> Document:
    """One endpoint."""
    return find(call)


def list_all(call: Call) -> Document:
    """All endpoints of the workspace; `name`, and `tags` as names or name=value, choose among them."""
    found = [one for _, one in call.rehearsal.store.all(KIND)]
    if name := call.query.get("name"):
        found = [one for one in found if one["name"].lower() == name.lower()]
    for tag in filter(None, call.query.get("tags", "").split(",")):
        key, equals, value = tag.partition("=")
        found = [one for one in found if key in one["tags"] and (not equals or one["tags"][key] == value)]
    return page(found)


def put(call: Call) -> Answer:
    """Make an endpoint, or put another state of it in the place of the one there."""
    name = call.params["endpoint"]
    validation.endpoint_name(name)
    sent = sent_properties(call)
    store = call.rehearsal.store
    before = store.get(KIND, name)
    if before is None and call.rehearsal.refusals.take("name-taken"):
        raise wording.invalid("", _TAKEN)
    if before:
        check_idle(before)
        name = before["name"]
    names = deployment_names(call, name)
    traffic = validation.traffic(sent.get("traffic"), names)
    properties = {
        "authMode": validation.auth_mode(sent.get("authMode")),
        "description": sent.get("description"),
        "compute": None,
        "keys": None,
        "traffic": traffic,
        "mirrorTraffic": validation.mirror_traffic(sent.get("mirrorTraffic"), names, traffic),
        "publicNetworkAccess": sent.get("publicNetworkAccess") or "Enabled",
        "properties": _kept_properties(before, sent) | {"azureml.onlineendpointid": call.path.lower()},
        "scoringUri": f"https://{name.lower()}.{SCORING_SUFFIX}/score",
        "swaggerUri": f"https://{name.lower()}.{SCORING_SUFFIX}/swagger.json",
        "provisioningState": "Updating" if before else "Creating",
    }
    document = envelope(f"onlineEndpoints/{name}", properties, call, before) | {
        "location": call.body.get("location") or LOCATION,
        "tags": call.body.get("tags") or {},
        "kind": call.body.get("kind") or "Managed",
        "identity": _identity(call, before),
        "_": (before or {}).get("_") or _keys(sent.get("keys")),
    }
    store.put(KIND, name, document)
    return _settle(call, name, f"{'update' if before else 'create'} endpoint {name}", document, 200 if before else 201)


def patch(call: Call) -> Answer:
    """Change tags and identity."""
    before = find(call)
    check_idle(before)
    body = call.body if isinstance(call.body, dict) else {}
    document = before | {
        "tags": body["tags"] if body.get("tags") is not None else before["tags"],
        "identity": _identity(call, before) if body.get("identity") else before["identity"],
        "systemData": system_data(call, before),
        "properties": before["properties"] | {"provisioningState": "Updating"},
    }
    name = before["name"]
    call.rehearsal.store.put(KIND, name, document)
    return _settle(call, name, f"update endpoint {name}", document, 200)


def delete(call: Call) -> Answer:
    """Delete an endpoint, its deployments first."""
    found = call.rehearsal.store.get(KIND, call.params["endpoint"])
    if found is None:
        return Answer(204)
    check_idle(found)
    name = found["name"]
    set_state(call, KIND, name, "Deleting")

    def work() -> None:
        fleet = fleet_of(call.rehearsal)
        for key, _ in call.rehearsal.store.all(DEPLOYMENTS, f"{name}/"):
            set_state(call, DEPLOYMENTS, key, "Deleting")
            fleet.remove(name, key.partition("/")[2])
            call.rehearsal.store.delete(DEPLOYMENTS, key)
        call.rehearsal.store.delete(KIND, name)

    return call.rehearsal.operations.begin(f"delete endpoint {name}", work)


def check_idle(document: Document) -> None:
    """Raise WireError while something is being done with an endpoint."""
    state = document["properties"]["provisioningState"]
    if state in BUSY:
        raise wording.conflict(
            f"Endpoint {document['name']} is in {state} provisioning state. Try again once that operation has ended."
        )


def set_state(call: Call, kind: str, key: str, state: str) -> None:
    """Write down what is being done, or how it ended."""

    def change(document: Document) -> None:
        document["properties"]["provisioningState"] = state

    call.rehearsal.store.change(kind, key, change)


def deployment_names(call: Call, endpoint: str) -> list[str]:
    """The names of an endpoint's deployments."""
    return [one["name"] for _, one in call.rehearsal.store.all(DEPLOYMENTS, f"{endpoint}/")]


def new_key() -> str:
    """A key as the service makes them: letters and digits."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))


_TAKEN = (
    "There is already an endpoint with this name, Endpoint name needs to be unique within a region. "
    "Try some other name."
)


def _settle(call: Call, name: str, title: str, document: Document, status: int) -> Answer:
    """Begin the operation after which the endpoint is ready."""

    def work() -> None:
        if told := call.rehearsal.refusals.take("slow"):
            threading.Event().wait(float(told["seconds"]))
        set_state(call, KIND, name, "Succeeded")

    return call.rehearsal.operations.begin(title, work, body=document, status=status)


def _kept_properties(before: Document | None, sent: dict[str, Any]) -> dict[str, str]:
    """Properties can be added, and are never taken away or changed."""
    told = {key: str(value) for key, value in (sent.get("properties") or {}).items() if value is not None}
    return told | ((before or {}).get("properties", {}).get("properties") or {})


def _keys(sent: Any) -> dict[str, str]:
    told = sent if isinstance(sent, dict) else {}
    return {"primary": told.get("primaryKey") or new_key(), "secondary": told.get("secondaryKey") or new_key()}


def _identity(call: Call, before: Document | None) -> dict[str, Any]:
    """The endpoint's identity with the ids that the directory gave it.

    Raises:
        WireError: it is of no kind that there is, or names a user-assigned identity that is not there.
    """
    sent = call.body.get("identity") or {"type": "SystemAssigned"}
    kinds = {kind.strip().lower() for kind in str(sent.get("type") or "").split(",")}
    if not kinds <= {"systemassigned", "userassigned", "none"} or not kinds:
        raise wording.user_error(f"identity.type {sent.get('type')!r}: SystemAssigned, UserAssigned, or both.")
    answer: dict[str, Any] = {"type": sent["type"], "principalId": None, "tenantId": None}
    if "systemassigned" in kinds:
        known = ((before or {}).get("identity") or {}).get("principalId")
        answer |= {"principalId": known or str(uuid.uuid4()), "tenantId": TENANT}
    if "userassigned" in kinds:
        wanted = sent.get("userAssignedIdentities") or {}
        if not wanted:
            raise wording.user_error("identity.userAssignedIdentities must name at least one identity.")
        answer["userAssignedIdentities"] = {one: _assigned(call, one) for one in wanted}
    return answer


def _assigned(call: Call, identifier: str) -> dict[str, str]:
    for _, one in call.rehearsal.store.all("identities"):
        if one["id"].lower() == identifier.lower():
            return {key: one["properties"][key] for key in ("principalId", "clientId")}
    inner = f"Resource '{identifier}' was not found."
    raise WireError(
        400,
        "FailedIdentityOperation",
        f"Identity operation for resource '{resource_id('workspaces', call.params['workspace'])}/onlineEndpoints/"
        f"{call.params['endpoint']}' failed with error 'Failed to perform resource identity operation. Status: "
        f"'BadRequest'. Response: '{inner}'.'",
    )
