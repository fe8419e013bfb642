"""Role assignments of the resource group and of what is in it, and what they allow.

Assignments are kept and listed; nothing is refused because of them. What a missing role looks like is shown by
`phikit rehearsal refuse role`: then calls are answered 403, and the caller's permissions here are a reader's.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from devtools.rehearsal import GROUP_PATH, MANAGEMENT_HOST, SUBSCRIPTION
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, Route, WireError, page

KIND = "roleAssignments"
#: Built-in roles, by the ids that they have everywhere: what they allow on resources and on what is in them.
ROLES: dict[str, tuple[str, list[str], list[str], list[str]]] = {
    "Owner": ("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", ["*"], [], []),
    "Contributor": (
        "b24988ac-6180-42a0-ab88-20f7382dd24c",
        ["*"],
        ["Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write"],
        [],
    ),
    "Reader": ("acdd72a7-3385-48ef-bd42-f606fba81ae7", ["*/read"], [], []),
    "AzureML Data Scientist": (
        "f6c7c914-8db3-469d-8ca1-694a8f32e121",
        ["Microsoft.MachineLearningServices/workspaces/*/read", "Microsoft.MachineLearningServices/workspaces/*/write"],
        ["Microsoft.MachineLearningServices/workspaces/computes/*/write"],
        [],
    ),
    "AcrPull": ("7f951dda-4ed3-4680-a7ca-43fe172d538d", ["Microsoft.ContainerRegistry/registries/pull/read"], [], []),
    "AcrPush": (
        "8311e382-0749-4cb8-b61a-304f252e45ec",
        ["Microsoft.ContainerRegistry/registries/pull/read", "Microsoft.ContainerRegistry/registries/push/write"],
        [],
        [],
    ),
    "Storage Blob Data Reader": (
        "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
        ["Microsoft.Storage/storageAccounts/blobServices/containers/read"],
        [],
        ["Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"],
    ),
    "Storage Blob Data Contributor": (
        "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
        ["Microsoft.Storage/storageAccounts/blobServices/containers/*"],
        [],
        ["Microsoft.Storage/storageAccounts/blobServices/containers/blobs/*"],
    ),
}
_PROVIDER = "Microsoft.Authorization"
_DEFINITIONS = f"/subscriptions/{SUBSCRIPTION}/providers/{_PROVIDER}/roleDefinitions"
_FILTER = re.compile(r"(principalId|assignedTo)\s*(?:eq\s*|\(\s*)'([^']+)'\s*\)?", re.IGNORECASE)


def name_of(principal: str, role: str, scope: str) -> str:
    """The assignment's name: always the same for the same three."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{principal}/{role}{scope}".lower()))


def assignment(name: str, principal: str, role: str, scope: str) -> Document:
    """That a principal has a role on a scope."""
    return {
        "id": f"{scope}/providers/{_PROVIDER}/roleAssignments/{name}",
        "name": name,
        "type": f"{_PROVIDER}/roleAssignments",
        "properties": {
            "principalId": principal,
            "principalType": "ServicePrincipal",
            "roleDefinitionId": f"{_DEFINITIONS}/{ROLES[role][0]}",
            "scope": scope,
        },
    }


def list_assignments(call: Call) -> Document:
    """Those on the scope and above it; with `$filter` those of one principal only."""
    scope = _scope(call).lower()
    found = [one for _, one in call.rehearsal.store.all(KIND)]
    found = [one for one in found if f"{scope}/".startswith(f"{one['properties']['scope'].lower()}/")]
    if wanted := _FILTER.search(call.query.get("$filter", "")):
        found = [one for one in found if one["properties"]["principalId"].lower() == wanted[2].lower()]
    return page(found)


def get_assignment(call: Call) -> Document:
    """One by its name."""
    found = call.rehearsal.store.get(KIND, call.params["assignment"])
    if found is None:
        raise WireError(404, "RoleAssignmentNotFound", f"The role assignment {call.params['assignment']} is not found.")
    return found


def put_assignment(call: Call) -> Answer:
    """Give a role; a second assignment of the same is refused, as Azure does."""
    sent = (call.body or {}).get("properties") or {}
    by_id = {identifier: role for role, (identifier, *_) in ROLES.items()}
    role = by_id.get(str(sent.get("roleDefinitionId", "")).rsplit("/", 1)[-1].lower())
    if role is None or not sent.get("principalId"):
        raise WireError(400, "BadRequestFormat", "The request needs properties.roleDefinitionId and principalId.")
    made = assignment(call.params["assignment"], sent["principalId"], role, _scope(call))
    same = ("principalId", "roleDefinitionId", "scope")
    for _, one in call.rehearsal.store.all(KIND):
        if all(one["properties"][key].lower() == made["properties"][key].lower() for key in same):
            raise WireError(409, "RoleAssignmentExists", "The role assignment already exists.")
    return Answer(201, call.rehearsal.store.put(KIND, made["name"], made))


def delete_assignment(call: Call) -> Answer:
    """Take a role away."""
    found = call.rehearsal.store.get(KIND, call.params["assignment"])
    if found is None:
        return Answer(204)
    call.rehearsal.store.delete(KIND, call.params["assignment"])
    return Answer(200, found)


def definitions(call: Call) -> Document:
    """The built-in roles, or with `$filter` the one of that name."""
    wanted = re.search(r"roleName eq '([^']+)'", call.query.get("$filter", ""))
    return page([_definition(role) for role in ROLES if wanted is None or role.lower() == wanted[1].lower()])


def definition(call: Call) -> Document:
    """One role by its id."""
    for role, (identifier, *_) in ROLES.items():
        if identifier == call.params["definition"].lower():
            return _definition(role)
    raise WireError(404, "RoleDefinitionDoesNotExist", f"There is no role with the id {call.params['definition']}.")


def permissions(call: Call) -> Document:
    """What the caller may do here: everything, less what `refuse role` takes away."""
    refused = call.rehearsal.refusals.peek("role")
    if refused is not None and not refused.get("on"):
        return page([_permissions("Reader")])
    allowed = [_permissions("Contributor"), _permissions("Storage Blob Data Contributor")]
    if refused is not None:
        for one in allowed:
            one["notActions"] = [*one["notActions"], f"*{refused['on']}*"]
    return page(allowed)


def _permissions(role: str) -> dict[str, Any]:
    _, actions, excluded, data = ROLES[role]
    return {"actions": actions, "notActions": excluded, "dataActions": data, "notDataActions": []}


def _definition(role: str) -> Document:
    return {
        "id": f"{_DEFINITIONS}/{ROLES[role][0]}",
        "name": ROLES[role][0],
        "type": f"{_PROVIDER}/roleDefinitions",
        "properties": {
            "roleName": role,
            "type": "BuiltInRole",
            "assignableScopes": ["/"],
            "permissions": [_permissions(role)],
        },
    }


def _scope(call: Call) -> str:
    """What the call is about: its path up to the authorization provider."""
    return call.path[: call.path.lower().index(f"/providers/{_PROVIDER}/".lower())]


_RESOURCE = GROUP_PATH + "/providers/{provider}/{kind}/{name}"
ROUTES = [
    Route(method, MANAGEMENT_HOST, f"{scope}/providers/{_PROVIDER}/{tail}", handler)
    for scope in ("/subscriptions/{subscription}", GROUP_PATH, _RESOURCE)
    for method, tail, handler in (
        ("GET", "permissions", permissions),
        ("GET", "roleAssignments", list_assignments),
        ("GET", "roleAssignments/{assignment}", get_assignment),
        ("PUT", "roleAssignments/{assignment}", put_assignment),
        ("DELETE", "roleAssignments/{assignment}", delete_assignment),
        ("GET", "roleDefinitions", definitions),
        ("GET", "roleDefinitions/{definition}", definition),
    )
]
