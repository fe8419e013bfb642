"""The workspace and what it stands on, through the SDK and by hand."""

import pytest
from azure.ai.ml import MLClient
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import EnvironmentCredential

from devtools.rehearsal import (
    ACCOUNT,
    API_HOST,
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
from tests.rehearsal.raw import Arm

GROUP_PATH = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
STORAGE = resource_id("storageAccounts", ACCOUNT, "Microsoft.Storage")


@pytest.fixture(scope="module")
def arm(ml_client) -> Arm:
    return Arm()


def client(subscription: str = SUBSCRIPTION, group: str = GROUP, workspace: str = WORKSPACE) -> MLClient:
    return MLClient(EnvironmentCredential(), subscription, group, workspace)


def test_workspace(ml_client):
    found = ml_client.workspaces.get(WORKSPACE)
    assert found.name == WORKSPACE
    assert found.location == LOCATION
    assert found.resource_group == GROUP
    assert found._workspace_id == WORKSPACE_ID
    assert found.discovery_url == f"https://{API_HOST}/discovery"
    assert found.storage_account.endswith(f"/storageAccounts/{ACCOUNT}")
    assert found.container_registry.endswith(f"/registries/{REGISTRY}")
    assert found.mlflow_tracking_uri.startswith(f"azureml://{API_HOST}/mlflow/")
    assert [one.name for one in ml_client.workspaces.list()] == [WORKSPACE]
    assert [one.name for one in ml_client.workspaces.list(scope="subscription")] == [WORKSPACE]


def test_names_do_not_tell_upper_from_lower_case(ml_client):
    assert client(SUBSCRIPTION, GROUP.upper(), WORKSPACE.title()).workspaces.get(WORKSPACE.title()).name == WORKSPACE


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ({"subscription": "00000000-0000-0000-0000-00000000beef"}, "SubscriptionNotFound"),
        ({"group": "nobody"}, "ResourceGroupNotFound"),
        ({"workspace": "nobody"}, "ResourceNotFound"),
    ],
)
def test_what_is_not_there(ml_client, where, code):
    with pytest.raises(ResourceNotFoundError) as refused:
        other = client(**where)
        other.workspaces.get(other.workspace_name)
    assert refused.value.error.code == code
    with pytest.raises(ResourceNotFoundError) as refused:
        client(**where).compute.get("cpu")
    assert refused.value.error.code == code


def test_subscription_group_and_tenant(arm):
    found = arm.get(f"/subscriptions/{SUBSCRIPTION}").json()
    assert (found["subscriptionId"], found["tenantId"], found["state"]) == (SUBSCRIPTION, TENANT, "Enabled")
    assert [one["subscriptionId"] for one in arm.get("/subscriptions").json()["value"]] == [SUBSCRIPTION]
    assert [one["tenantId"] for one in arm.get("/tenants").json()["value"]] == [TENANT]
    assert arm.get(f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}").json()["location"] == LOCATION
    assert [one["name"] for one in arm.get(f"/subscriptions/{SUBSCRIPTION}/resourcegroups").json()["value"]] == [GROUP]


def test_identity_registry_and_storage(arm):
    identity = arm.get(resource_id("userAssignedIdentities", IDENTITY, "Microsoft.ManagedIdentity")).json()
    assert {"clientId", "principalId", "tenantId"} <= identity["properties"].keys()
    registry = arm.get(resource_id("registries", REGISTRY, "Microsoft.ContainerRegistry")).json()
    assert registry["properties"]["loginServer"].startswith("localhost:")
    account = arm.get(STORAGE).json()
    assert account["properties"]["primaryEndpoints"]["blob"] == f"https://{ACCOUNT}.blob.core.windows.net/"
    assert arm.call("POST", f"{STORAGE}/listKeys").json()["keys"][0]["value"]
    lost = arm.get(resource_id("userAssignedIdentities", "nobody", "Microsoft.ManagedIdentity"))
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "ResourceNotFound")


def test_discovery_needs_no_token(arm):
    import requests

    found = requests.get(f"https://{API_HOST}/discovery", timeout=30).json()
    assert found["api"] == f"https://{API_HOST}"


def test_quota_and_its_use(ml_client, rehearsal):
    usages = {one.name["value"]: one for one in ml_client.compute.list_usage() if "lowPriority" not in one.type}
    a100 = usages["standardNCADSA100v4Family"]
    assert a100.name["localizedValue"] == "Standard NCADSA100v4 Family Cluster Dedicated vCPUs"
    # (the SDK leaves the value in the name that it has on the wire, and its own attribute empty)
    assert (vars(a100)["currentValue"], a100.limit) == (0, 48)
    assert {"TotalDedicatedCores", "standardESv3Family"} <= usages.keys()
    pooled = [one for one in ml_client.compute.list_usage() if one.name["value"] == "TotalLowPriorityCores"]
    assert [one.limit for one in pooled] == [100]
    rehearsal.refuse("quota")
    assert {one.limit for one in ml_client.compute.list_usage()} == {0, -1}


def test_sizes(ml_client):
    sizes = {one.name: one for one in ml_client.compute.list_sizes()}
    a100 = sizes["Standard_NC24ads_A100_v4"]
    assert (a100.family, a100.gpus) == ("standardNCADSA100v4Family", 1)
    assert vars(a100)["vCPUs"] == 24
    assert vars(a100)["memoryGB"] == 220
    assert vars(a100)["lowPriorityCapable"]
    known = {"Standard_E16s_v3", "Standard_E4s_v3", "Standard_F8s_v2", "Standard_DS3_v2", "Standard_NC6s_v3"}
    assert known <= sizes.keys()
    with pytest.raises(HttpResponseError, match="the rehearsal has eastus2 only"):
        ml_client.compute.list_sizes(location="westeurope")


def test_permissions(arm, rehearsal):
    path = f"{resource_id('workspaces', WORKSPACE)}/providers/Microsoft.Authorization/permissions"
    assert "*" in {action for one in arm.get(path).json()["value"] for action in one["actions"]}
    rehearsal.refuse("role")
    assert [one["actions"] for one in arm.get(path).json()["value"]] == [["*/read"]]
    rehearsal.refuse("role", on="computes/write")
    assert all("*computes/write*" in one["notActions"] for one in arm.get(path).json()["value"])


def test_role_assignments(arm):
    identity = arm.get(resource_id("userAssignedIdentities", IDENTITY, "Microsoft.ManagedIdentity")).json()
    principal = identity["properties"]["principalId"]

    def roles(scope: str, principal: str) -> set[str]:
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
        found = arm.get(path, params={"$filter": f"principalId eq '{principal}'"}).json()["value"]
        return {arm.get(one["properties"]["roleDefinitionId"]).json()["properties"]["roleName"] for one in found}

    assert roles(GROUP_PATH, principal) == {"Contributor"}
    assert roles(STORAGE, principal) == {"Contributor", "Storage Blob Data Reader"}
    registry = resource_id("registries", REGISTRY, "Microsoft.ContainerRegistry")
    assert roles(registry, principal) == {"Contributor", "AcrPull"}
    assert "AcrPush" in roles(registry, PRINCIPAL)


def test_a_role_is_given_once_and_taken_away(arm):
    name = "11111111-0000-0000-0000-000000000001"
    path = f"{GROUP_PATH}/providers/Microsoft.Authorization/roleAssignments"
    reader = arm.get(
        f"{GROUP_PATH}/providers/Microsoft.Authorization/roleDefinitions", params={"$filter": "roleName eq 'Reader'"}
    ).json()["value"]
    body = {"properties": {"principalId": name, "roleDefinitionId": reader[0]["id"]}}
    assert arm.put(f"{path}/{name}", body).status_code == 201
    again = arm.put(f"{path}/11111111-0000-0000-0000-000000000002", body)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "RoleAssignmentExists")
    assert arm.call("DELETE", f"{path}/{name}").status_code == 200
    assert arm.call("DELETE", f"{path}/{name}").status_code == 204
    assert arm.get(f"{path}/{name}").status_code == 404


def test_datastores(ml_client):
    default = ml_client.datastores.get_default()
    assert (default.name, default.account_name) == ("workspaceblobstore", ACCOUNT)
    assert {one.name for one in ml_client.datastores.list()} >= {"workspaceblobstore", "workspaceartifactstore"}
    assert ml_client.datastores.get("workspaceblobstore", include_secrets=True).credentials.sas_token
    with pytest.raises(ResourceNotFoundError):
        ml_client.datastores.get("nobody")


def test_account_key_where_no_expiring_secret_is_asked_for(arm):
    path = f"{resource_id('workspaces', WORKSPACE)}/datastores/workspaceblobstore/listSecrets"
    found = arm.call("POST", path, json={}).json()
    assert found["secretsType"] == "AccountKey"
    assert found["key"]
