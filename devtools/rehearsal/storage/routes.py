"""Datastores of the workspace: the default blob store, the one of job artifacts, and what lets a client write there.

The storage behind them is a real Azurite. With `phikit rehearsal refuse storage-write` the signatures that are handed
out only read, so it is the storage that refuses to write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devtools.rehearsal import ACCOUNT, CONTAINER, GROUP, MANAGEMENT_HOST, SUBSCRIPTION, WORKSPACE_PATH
from devtools.rehearsal.resources import envelope, sent_properties
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, Route, WireError, missing, page

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

KIND = "datastores"
DEFAULT, ARTIFACTS = "workspaceblobstore", "workspaceartifactstore"
#: Hours that a signature is good for.
HOURS = 1
#: What a signature allows: all of it, or, where the writing of data is refused, to read and to list.
ALL, READ = "racwdl", "rl"


def permissions(rehearsal: Rehearsal) -> str:
    """What the next signature is to allow."""
    return READ if rehearsal.refusals.take("storage-write") is not None else ALL


def get(call: Call) -> Document:
    """One datastore."""
    return _found(call)


def list_all(call: Call) -> Document:
    """All datastores, or those asked for: `isDefault`, `names`."""
    found = [document for _, document in call.rehearsal.store.all(KIND)]
    if default := call.query.get("isDefault"):
        found = [one for one in found if one["properties"]["isDefault"] == (default.lower() == "true")]
    if names := call.query.get("names"):
        found = [one for one in found if one["name"] in names.split(",")]
    return page(found)


def put(call: Call) -> Answer:
    """Attach a container of the workspace's storage account under a name of its own."""
    name = call.params["name"]
    properties = sent_properties(call)
    before = call.rehearsal.store.get(KIND, name)
    container = str(properties.get("containerName") or CONTAINER)
    if properties.get("datastoreType") != "AzureBlob" or properties.get("accountName") != ACCOUNT:
        raise WireError(
            400, "UserError", f"Datastore {name}: the rehearsal has blob containers of the account {ACCOUNT} only."
        )
    if before and before["properties"]["isDefault"]:
        raise WireError(400, "UserError", f"Datastore {name} is the workspace's default and cannot be changed.")
    call.rehearsal.blobs.ensure_container(container)
    document = envelope(f"datastores/{name}", _blob(container), call, before)
    return Answer(200 if before else 201, call.rehearsal.store.put(KIND, name, document))


def delete(call: Call) -> Answer:
    """Detach a datastore; what is in the container stays."""
    name = call.params["name"]
    before = call.rehearsal.store.get(KIND, name)
    if before and name.lower() in (DEFAULT, ARTIFACTS):
        raise WireError(400, "UserError", f"Datastore {name} belongs to the workspace and cannot be deleted.")
    return Answer(200 if call.rehearsal.store.delete(KIND, name) else 204)


def list_secrets(call: Call) -> Document:
    """A signature for the container where the caller asks for a secret that expires, else the account's key."""
    properties = _found(call)["properties"]
    asked = call.body if isinstance(call.body, dict) else {}
    blobs = call.rehearsal.blobs
    if asked.get("expirableSecret"):
        hours = int(asked.get("expireAfterHours") or HOURS)
        return {
            "secretsType": "Sas",
            "sasToken": blobs.sas(properties["containerName"], permissions(call.rehearsal), hours),
        }
    return {"secretsType": "AccountKey", "key": blobs.account_key}


def resume(rehearsal: Rehearsal) -> None:
    """See that the workspace's own datastores are there, and the container behind them."""
    rehearsal.blobs.ensure_container(CONTAINER)
    for name in (DEFAULT, ARTIFACTS):
        properties = _blob(CONTAINER, default=name == DEFAULT)
        if rehearsal.store.get(KIND, name) is None:
            rehearsal.store.put(KIND, name, envelope(f"datastores/{name}", properties, None))


def _found(call: Call) -> Document:
    name = call.params["name"]
    document = call.rehearsal.store.get(KIND, name)
    if document is None:
        raise missing("Datastore", name)
    return document


def _blob(container: str, default: bool = False) -> dict[str, Any]:
    return {
        "datastoreType": "AzureBlob",
        "accountName": ACCOUNT,
        "containerName": container,
        "endpoint": "core.windows.net",
        "protocol": "https",
        "subscriptionId": SUBSCRIPTION,
        "resourceGroup": GROUP,
        "credentials": {"credentialsType": "AccountKey"},
        "serviceDataAccessAuthIdentity": "None",
        "isDefault": default,
        "description": None,
        "properties": {},
        "tags": {},
    }


_ALL = WORKSPACE_PATH + "/datastores"
_ONE = _ALL + "/{name}"
ROUTES = [
    Route("GET", MANAGEMENT_HOST, _ALL, list_all),
    Route("GET", MANAGEMENT_HOST, _ONE, get),
    Route("PUT", MANAGEMENT_HOST, _ONE, put),
    Route("DELETE", MANAGEMENT_HOST, _ONE, delete),
    Route("POST", MANAGEMENT_HOST, _ONE + "/listSecrets", list_secrets),
]
