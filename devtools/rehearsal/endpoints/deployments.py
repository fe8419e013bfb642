"""Deployments: made, replaced in place, scaled, listed, deleted, their logs read.

Their documents are of kind `deployments`, by endpoint and name; `_` holds what serves: the document it was started
from, and its revision.
"""

from __future__ import annotations

from typing import Any

from devtools.rehearsal import LOCATION
from devtools.rehearsal.endpoints import capacity, plan, validation, wording
from devtools.rehearsal.endpoints.fleet import fleet_of
from devtools.rehearsal.endpoints.online_endpoints import BUSY, DEPLOYMENTS, KIND, set_state
from devtools.rehearsal.endpoints.online_endpoints import find as find_endpoint
from devtools.rehearsal.resources import envelope, sent_properties, shown, system_data
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, WireError, missing, page

#: The size of a deployment that names none.
DEFAULT_SIZE = "Standard_F4s_v2"
#: What of a deployment's properties is kept as it was sent.
PLAIN = ("description", "model", "modelMountPath", "codeConfiguration", "environmentId", "dataCollector")


def find(call: Call) -> Document:
    """The deployment that the path names; raises WireError where it, or its endpoint, is not there."""
    endpoint = find_endpoint(call)
    key = f"{endpoint['name']}/{call.params['deployment']}"
    found = call.rehearsal.store.get(DEPLOYMENTS, key)
    if found is None:
        raise missing("OnlineDeployment", call.params["deployment"])
    return found


def get(call: Call) -> Document:
    """One deployment."""
    return find(call)


def list_all(call: Call) -> Document:
    """All deployments of an endpoint."""
    endpoint = find_endpoint(call)
    return page([one for _, one in call.rehearsal.store.all(DEPLOYMENTS, f"{endpoint['name']}/")])


def put(call: Call) -> Answer:
    """Make a deployment, or replace what it runs while it goes on answering."""
    endpoint = find_endpoint(call)
    _check_endpoint(endpoint)
    name = call.params["deployment"]
    validation.deployment_name(name)
    sent = sent_properties(call)
    before = call.rehearsal.store.get(DEPLOYMENTS, f"{endpoint['name']}/{name}")
    if before:
        _check_changeable(before)
        name = before["name"]
    count = _instances(call.body.get("sku"))
    size = capacity.check(call, sent.get("instanceType") or DEFAULT_SIZE, count, before)
    properties = {key: sent.get(key) for key in PLAIN} | {
        "endpointComputeType": _compute_type(sent),
        "instanceType": size,
        "environmentVariables": dict(sent.get("environmentVariables") or {}),
        "appInsightsEnabled": bool(sent.get("appInsightsEnabled")),
        "egressPublicNetworkAccess": sent.get("egressPublicNetworkAccess") or "Enabled",
        "scaleSettings": sent.get("scaleSettings") or {"scaleType": "Default"},
        "requestSettings": validation.request_settings(sent.get("requestSettings")),
        "livenessProbe": validation.probe(sent.get("livenessProbe"), "livenessProbe"),
        "readinessProbe": validation.probe(sent.get("readinessProbe"), "readinessProbe"),
        "properties": dict(sent.get("properties") or {}),
        "provisioningState": "Updating" if before else "Creating",
    }
    tail = f"onlineEndpoints/{endpoint['name']}/deployments/{name}"
    document = envelope(tail, properties, call, before) | {
        "location": call.body.get("location") or LOCATION,
        "tags": call.body.get("tags") or {},
        "kind": call.body.get("kind") or "Managed",
        "sku": {"name": "Default", "capacity": count},
        "_": (before or {}).get("_") or {},
    }
    plan.read(call.rehearsal, document)
    return _roll_out(call, endpoint["name"], document, 200 if before else 201)


def patch(call: Call) -> Answer:
    """Change tags, or how many instances there are."""
    before = find(call)
    endpoint = find_endpoint(call)
    _check_endpoint(endpoint)
    _check_changeable(before)
    body = call.body if isinstance(call.body, dict) else {}
    count = _instances(body["sku"]) if body.get("sku") else before["sku"]["capacity"]
    document = before | {
        "tags": body["tags"] if body.get("tags") is not None else before["tags"],
        "systemData": system_data(call, before),
    }
    if count == before["sku"]["capacity"]:
        return Answer(200, call.rehearsal.store.put(DEPLOYMENTS, f"{endpoint['name']}/{before['name']}", document))
    capacity.check(call, before["properties"]["instanceType"], count, before)
    document |= {
        "sku": before["sku"] | {"capacity": count},
        "properties": before["properties"] | {"provisioningState": "Updating"},
    }
    return _roll_out(call, endpoint["name"], document, 200)


def delete(call: Call) -> Answer:
    """Delete a deployment; one that is still being made is given up."""
    endpoint = find_endpoint(call)
    name = call.params["deployment"]
    key = f"{endpoint['name']}/{name}"
    found = call.rehearsal.store.get(DEPLOYMENTS, key)
    if found is None:
        return Answer(204)
    if found["properties"]["provisioningState"] == "Deleting":
        raise wording.conflict(f"Deployment {name} is in Deleting provisioning state.")
    told = endpoint["properties"]
    if told["traffic"].get(found["name"]) or told["mirrorTraffic"].get(found["name"]):
        raise wording.invalid(
            "", f"Can't delete deployment with non-zero traffic weight: {name}. Take its traffic away first."
        )
    set_state(call, DEPLOYMENTS, key, "Deleting")

    def work() -> None:
        fleet_of(call.rehearsal).remove(endpoint["name"], name)
        call.rehearsal.store.delete(DEPLOYMENTS, key)
        call.rehearsal.store.change(KIND, endpoint["name"], lambda one: _forget_traffic(one, found["name"]))

    return call.rehearsal.operations.begin(f"delete deployment {key}", work)


def get_logs(call: Call) -> dict[str, str]:
    """The log of one of a deployment's containers."""
    found = find(call)
    body = call.body if isinstance(call.body, dict) else {}
    lines = body.get("tail") or 100
    kind = body.get("containerType") or "InferenceServer"
    if not isinstance(lines, int) or lines < 1:
        raise wording.user_error(f"tail {lines!r} must be a whole number above 0.")
    journal = fleet_of(call.rehearsal).journal(call.params["endpoint"], found["name"])
    readers = {"inferenceserver": journal.text, "storageinitializer": journal.storage_text}
    if str(kind).lower() not in readers:
        raise wording.user_error(f"containerType {kind!r}: InferenceServer or StorageInitializer.")
    return {"content": readers[str(kind).lower()](lines)}


def list_skus(call: Call) -> Document:
    """How many instances the deployment may have."""
    found = find(call)
    return page(
        [
            {
                "resourceType": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments",
                "sku": {"name": "Default", "tier": "Standard"},
                "capacity": {
                    "default": found["sku"]["capacity"],
                    "minimum": 1,
                    "maximum": capacity.MOST_INSTANCES,
                    "scaleType": "Manual",
                },
            }
        ]
    )


def _roll_out(call: Call, endpoint: str, document: Document, status: int) -> Answer:
    """Begin the operation at whose end the deployment runs as the document says."""
    store, name = call.rehearsal.store, document["name"]
    key = f"{endpoint}/{name}"
    store.put(DEPLOYMENTS, key, document)

    def work() -> None:
        try:
            revision = fleet_of(call.rehearsal).roll_out(endpoint, name, document)
        except BaseException:
            _leave_unless_deleting(call, key)
            raise

        def succeed(one: Document) -> None:
            if one["properties"]["provisioningState"] != "Deleting":
                one["properties"]["provisioningState"] = "Succeeded"
            one["_"] = {"serving": shown(document), "revision": revision}

        store.change(DEPLOYMENTS, key, succeed)

    title = f"{'update' if status == 200 else 'create'} deployment {key}"
    return call.rehearsal.operations.begin(title, work, body=document, status=status)


def _leave_unless_deleting(call: Call, key: str) -> None:
    def fail(one: Document) -> None:
        if one["properties"]["provisioningState"] != "Deleting":
            one["properties"]["provisioningState"] = "Failed"

    call.rehearsal.store.change(DEPLOYMENTS, key, fail)


def _forget_traffic(endpoint: Document, deployment: str) -> None:
    for field in ("traffic", "mirrorTraffic"):
        endpoint["properties"][field].pop(deployment, None)


def _check_endpoint(endpoint: Document) -> None:
    state = endpoint["properties"]["provisioningState"]
    if state in BUSY:
        raise wording.conflict(
            f"Cannot create a deployment in endpoint {endpoint['name']} because it is in {state} provisioning state."
        )
    if state == "Failed":
        raise wording.invalid("", f"Endpoint {endpoint['name']} is in Failed provisioning state.")


def _check_changeable(deployment: Document) -> None:
    name, state = deployment["name"], deployment["properties"]["provisioningState"]
    if state in BUSY:
        raise wording.conflict(f"Deployment {name} is in {state} provisioning state. Try again once that has ended.")
    if state == "Failed" and not deployment["_"]:
        raise wording.invalid(
            "",
            f"Specified deployment [{name}] failed during initial provisioning and is in an unrecoverable state. "
            "Delete and re-create.",
        )


def _compute_type(sent: dict[str, Any]) -> str:
    kind = sent.get("endpointComputeType") or "Managed"
    if str(kind).lower() != "managed":
        raise WireError(501, "NotEmulated", f"endpointComputeType {kind}: the rehearsal has managed deployments only")
    return "Managed"


def _instances(sku: Any) -> int:
    count = (sku or {}).get("capacity", 1) if isinstance(sku or {}, dict) else None
    count = 1 if count is None else count
    if not isinstance(count, int) or not 1 <= count <= capacity.MOST_INSTANCES:
        raise wording.invalid(
            "InstanceCount",
            f"The instance count must be a whole number from 1 to {capacity.MOST_INSTANCES}, not {count!r}.",
            code=wording.DEPLOYMENT,
        )
    return count
