"""The workspace, its discovery document, and the resources around it that clients look up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from devtools.rehearsal import (
    ACCOUNT,
    API_HOST,
    GROUP_PATH,
    MANAGEMENT_HOST,
    WORKSPACE_PATH,
)
from devtools.rehearsal.resources import PROVIDER
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, Handler, Route, WireError, page
from devtools.rehearsal.workspaces import capacity, documents, roles

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal


def one(kind: str, parameter: str, type_name: str) -> Handler:
    """A handler that answers the document of that kind which the path names."""

    def get(call: Call) -> Document:
        found = call.rehearsal.store.get(kind, call.params[parameter])
        if found is None:
            raise WireError(
                404,
                "ResourceNotFound",
                f"The Resource '{type_name}/{call.params[parameter]}' under resource group "
                f"'{call.params.get('group', '')}' was not found.",
            )
        return found

    return get


def every(kind: str) -> Callable[[Call], dict[str, Any]]:
    """A handler that answers all documents of that kind."""

    def list_all(call: Call) -> Document:
        return page([document for _, document in call.rehearsal.store.all(kind)])

    return list_all


def tenants(call: Call) -> Document:
    """The directories that the caller belongs to."""
    return page([documents.tenant()])


def discovery(call: Call) -> Document:
    """Where the workspace's own services are: all of them here."""
    names = ("api", "history", "experimentation", "modelmanagement", "pipelines", "hyperdrive", "notebooks", "studio")
    return dict.fromkeys(names, f"https://{API_HOST}")


def storage_keys(call: Call) -> Document:
    """The storage account's keys."""
    if call.params["name"].lower() != ACCOUNT:
        raise WireError(404, "ResourceNotFound", f"The storage account {call.params['name']} was not found.")
    key = call.rehearsal.blobs.account_key
    return {"keys": [{"keyName": "key1", "value": key, "permissions": "FULL"}]}


def resume(rehearsal: Rehearsal) -> None:
    """See that everything is there that the workspace stands on."""
    documents.seed(rehearsal)


def _provider(provider: str, kind: str) -> str:
    return f"{GROUP_PATH}/providers/{provider}/{kind}"


_SUBSCRIPTIONS = "/subscriptions"
_ONE = _SUBSCRIPTIONS + "/{subscription}"
_OTHERS = [
    (documents.IDENTITY_PROVIDER, "userAssignedIdentities", "identities"),
    (documents.STORAGE_PROVIDER, "storageAccounts", "storageAccounts"),
    (documents.REGISTRY_PROVIDER, "registries", "registries"),
]
ROUTES = [
    Route("GET", MANAGEMENT_HOST, "/tenants", tenants),
    Route("GET", MANAGEMENT_HOST, _SUBSCRIPTIONS, every("subscriptions")),
    Route("GET", MANAGEMENT_HOST, _ONE, one("subscriptions", "subscription", "Microsoft.Resources/subscriptions")),
    Route("GET", MANAGEMENT_HOST, _ONE + "/resourceGroups", every("resourceGroups")),
    Route("GET", MANAGEMENT_HOST, GROUP_PATH, one("resourceGroups", "group", "Microsoft.Resources/resourceGroups")),
    Route("GET", MANAGEMENT_HOST, f"{_ONE}/providers/{PROVIDER}/workspaces", every("workspaces")),
    Route("GET", MANAGEMENT_HOST, _provider(PROVIDER, "workspaces"), every("workspaces")),
    Route("GET", MANAGEMENT_HOST, WORKSPACE_PATH, one("workspaces", "workspace", f"{PROVIDER}/workspaces")),
    Route("GET", API_HOST, "/discovery", discovery, asks_token=False),
    *(
        Route("GET", MANAGEMENT_HOST, _provider(provider, kind) + tail, handler)
        for provider, kind, store in _OTHERS
        for tail, handler in (("/{name}", one(store, "name", f"{provider}/{kind}")), ("", every(store)))
    ),
    Route(
        "POST",
        MANAGEMENT_HOST,
        _provider(documents.STORAGE_PROVIDER, "storageAccounts") + "/{name}/listKeys",
        storage_keys,
    ),
    *capacity.ROUTES,
    *roles.ROUTES,
]
