"""Whether the endpoint's identity may pull the image and read the model: what is forgotten most often, noticed last.

permissions.check(rehearsal, "phikit", plan)

phikit rehearsal refuse role --on registries/pull      # as if it might not
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devtools.rehearsal.endpoints import wording
from devtools.rehearsal.endpoints.plan import Plan
from devtools.rehearsal.workspaces import roles
from devtools.rehearsal.workspaces.documents import IDENTITY_ID, IDENTITY_PRINCIPAL, REGISTRY_ID, STORAGE_ID

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: What the identity does, and the roles that allow it.
PULL = "Microsoft.ContainerRegistry/registries/pull/read"
PULLING = ("AcrPull", "AcrPush", "Contributor", "Owner")
READ = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"
READING = ("Storage Blob Data Reader", "Storage Blob Data Contributor")
#: The guide's page for both.
PAGE = "authorization-error"


def check(rehearsal: Rehearsal, endpoint: str, plan: Plan) -> None:
    """Raise WireError unless the endpoint's identity may do what starting the deployment takes.

    A system-assigned identity is given its roles by the service itself; a user-assigned one has those that somebody
    gave it. Images that are not of the workspace's registry are anybody's.
    """
    document = rehearsal.store.get("endpoints", endpoint)
    assigned = ((document or {}).get("identity") or {}).get("userAssignedIdentities") or {}
    own = IDENTITY_ID.lower() in {one.lower() for one in assigned}
    if plan.image.startswith(f"localhost:{rehearsal.registry_port}/") and not _may(
        rehearsal, own, PULL, PULLING, REGISTRY_ID
    ):
        raise wording.failed(
            "BadArgument",
            "Endpoint identity does not have pull permission on the registry: it needs the role AcrPull there.",
            PAGE,
        )
    if (plan.model or plan.code) and not _may(rehearsal, own, READ, READING, STORAGE_ID):
        raise wording.failed(
            "BadArgument",
            "Startup task failed due to authorization error: the endpoint identity needs the role Storage Blob Data "
            "Reader on the storage account.",
            PAGE,
        )


def _may(rehearsal: Rehearsal, own: bool, action: str, names: tuple[str, ...], scope: str) -> bool:
    told = (rehearsal.refusals.peek("role") or {}).get("on") or ""
    # (a refusal without an action is the caller's: it meets calls before they come here)
    if told and told.lower() in action.lower() and rehearsal.refusals.take("role"):
        return False
    return not own or _has(rehearsal, IDENTITY_PRINCIPAL, names, scope)


def _has(rehearsal: Rehearsal, principal: str, names: tuple[str, ...], scope: str) -> bool:
    """Whether a principal has one of the roles on a scope, or on one around it."""
    wanted = {roles.ROLES[name][0] for name in names}
    for _, one in rehearsal.store.all(roles.KIND):
        told = one["properties"]
        if told["principalId"] == principal and told["roleDefinitionId"].rsplit("/", 1)[-1] in wanted:
            around = told["scope"].rstrip("/").lower()
            if scope.lower() == around or scope.lower().startswith(f"{around}/"):
                return True
    return False
