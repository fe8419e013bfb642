"""The documents of the one workspace and of what it stands on, as Azure Resource Manager writes them.

seed(rehearsal)     # at every start: they are made anew, so that ports and names fit the emulator that runs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devtools.rehearsal import (
    ACCOUNT,
    API_HOST,
    BLOB_HOST,
    CLIENT,
    GROUP,
    IDENTITY,
    LOCATION,
    PRINCIPAL,
    REGISTRY,
    SUBSCRIPTION,
    TENANT,
    WORKSPACE,
    WORKSPACE_ID,
    resource_id,
)
from devtools.rehearsal.store import Document
from devtools.rehearsal.workspaces import roles

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

GROUP_ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
IDENTITY_PROVIDER = "Microsoft.ManagedIdentity"
IDENTITY_ID = resource_id("userAssignedIdentities", IDENTITY, IDENTITY_PROVIDER)
#: The identity's own client and principal.
IDENTITY_CLIENT = "00000000-0000-0000-0000-000000000006"
IDENTITY_PRINCIPAL = "00000000-0000-0000-0000-000000000007"
STORAGE_PROVIDER, REGISTRY_PROVIDER = "Microsoft.Storage", "Microsoft.ContainerRegistry"
STORAGE_ID = resource_id("storageAccounts", ACCOUNT, STORAGE_PROVIDER)
REGISTRY_ID = resource_id("registries", REGISTRY, REGISTRY_PROVIDER)
#: When all of it was made; nothing depends on it.
MADE = "2026-01-01T00:00:00.0000000Z"


def subscription() -> Document:
    """The subscription."""
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}",
        "subscriptionId": SUBSCRIPTION,
        "tenantId": TENANT,
        "displayName": "Rehearsal",
        "state": "Enabled",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    }


def tenant() -> Document:
    """The directory."""
    return {
        "id": f"/tenants/{TENANT}",
        "tenantId": TENANT,
        "tenantCategory": "Home",
        "displayName": "Rehearsal",
        "defaultDomain": "rehearsal.onmicrosoft.com",
    }


def group() -> Document:
    """The resource group."""
    return {
        "id": GROUP_ID,
        "name": GROUP,
        "type": "Microsoft.Resources/resourceGroups",
        "location": LOCATION,
        "tags": {},
        "properties": {"provisioningState": "Succeeded"},
    }


def workspace() -> Document:
    """The workspace."""
    return {
        "id": resource_id("workspaces", WORKSPACE),
        "name": WORKSPACE,
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": LOCATION,
        "kind": "Default",
        "tags": {},
        "sku": {"name": "Basic", "tier": "Basic"},
        "identity": {"type": "SystemAssigned", "principalId": PRINCIPAL, "tenantId": TENANT},
        "properties": {
            "workspaceId": WORKSPACE_ID,
            "friendlyName": WORKSPACE,
            "description": "A workspace on this machine",
            "provisioningState": "Succeeded",
            "discoveryUrl": f"https://{API_HOST}/discovery",
            "mlFlowTrackingUri": f"azureml://{API_HOST}/mlflow/v1.0{resource_id('workspaces', WORKSPACE)}",
            "storageAccount": STORAGE_ID,
            "containerRegistry": REGISTRY_ID,
            "keyVault": resource_id("vaults", WORKSPACE, "Microsoft.KeyVault"),
            "applicationInsights": resource_id("components", WORKSPACE, "Microsoft.Insights"),
            "publicNetworkAccess": "Enabled",
            "systemDatastoresAuthMode": "accessKey",
            "hbiWorkspace": False,
            "v1LegacyMode": False,
            "privateLinkCount": 0,
            "storageHnsEnabled": False,
            "tenantId": TENANT,
        },
        "systemData": _made(),
    }


def identity() -> Document:
    """The user-assigned identity of endpoints."""
    return {
        "id": IDENTITY_ID,
        "name": IDENTITY,
        "type": f"{IDENTITY_PROVIDER}/userAssignedIdentities",
        "location": LOCATION,
        "tags": {},
        "properties": {"tenantId": TENANT, "principalId": IDENTITY_PRINCIPAL, "clientId": IDENTITY_CLIENT},
    }


def storage_account() -> Document:
    """The workspace's storage account."""
    return {
        "id": STORAGE_ID,
        "name": ACCOUNT,
        "type": f"{STORAGE_PROVIDER}/storageAccounts",
        "location": LOCATION,
        "kind": "StorageV2",
        "sku": {"name": "Standard_LRS", "tier": "Standard"},
        "tags": {},
        "properties": {
            "provisioningState": "Succeeded",
            "primaryLocation": LOCATION,
            "statusOfPrimary": "available",
            "primaryEndpoints": {"blob": f"https://{BLOB_HOST}/"},
            "allowSharedKeyAccess": True,
            "publicNetworkAccess": "Enabled",
            "isHnsEnabled": False,
            "creationTime": MADE,
        },
    }


def container_registry(port: int) -> Document:
    """The workspace's container registry, behind which a real one listens on loopback."""
    return {
        "id": REGISTRY_ID,
        "name": REGISTRY,
        "type": f"{REGISTRY_PROVIDER}/registries",
        "location": LOCATION,
        "sku": {"name": "Basic", "tier": "Basic"},
        "tags": {},
        "properties": {
            "loginServer": f"localhost:{port}",
            "provisioningState": "Succeeded",
            "creationDate": MADE,
            "adminUserEnabled": False,
            "publicNetworkAccess": "Enabled",
        },
    }


def assignments() -> list[Document]:
    """Who has which role where: the identity those of the tutorial, the caller those to push and to upload."""
    given = [
        (IDENTITY_PRINCIPAL, "Contributor", GROUP_ID),
        (IDENTITY_PRINCIPAL, "Storage Blob Data Reader", STORAGE_ID),
        (IDENTITY_PRINCIPAL, "AcrPull", REGISTRY_ID),
        (PRINCIPAL, "Contributor", GROUP_ID),
        (PRINCIPAL, "Storage Blob Data Contributor", STORAGE_ID),
        (PRINCIPAL, "AcrPush", REGISTRY_ID),
    ]
    return [roles.assignment(roles.name_of(*one), *one) for one in given]


def seed(rehearsal: Rehearsal) -> None:
    """Write all of them; role assignments that were made or taken away since stay as they are."""
    put = rehearsal.store.put
    put("subscriptions", SUBSCRIPTION, subscription())
    put("resourceGroups", GROUP, group())
    put("workspaces", WORKSPACE, workspace())
    put("identities", IDENTITY, identity())
    put("storageAccounts", ACCOUNT, storage_account())
    put("registries", REGISTRY, container_registry(rehearsal.registry_port))
    if not rehearsal.store.all(roles.KIND):
        for one in assignments():
            put(roles.KIND, one["name"], one)


def _made() -> dict[str, Any]:
    return {
        "createdAt": MADE,
        "createdBy": CLIENT,
        "createdByType": "Application",
        "lastModifiedAt": MADE,
        "lastModifiedBy": CLIENT,
        "lastModifiedByType": "Application",
    }
