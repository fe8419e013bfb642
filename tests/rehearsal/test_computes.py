"""Clusters through the SDK: made, found, resized, deleted, and every refusal as the SDK raises it."""

import time
import uuid

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import AmlCompute, IdentityConfiguration, ManagedIdentityConfiguration
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import EnvironmentCredential

from devtools.rehearsal import GROUP, IDENTITY, SUBSCRIPTION, WORKSPACE, resource_id, session
from devtools.rehearsal.refusals import Refusals
from devtools.rehearsal.store import Store
from tests.rehearsal.raw import Arm

BASE = resource_id("workspaces", WORKSPACE)


@pytest.fixture
def name(ml_client):
    """A name that no cluster has; what is made under it goes with the test."""
    name = f"c{uuid.uuid4().hex[:8]}"
    yield name
    try:
        ml_client.compute.begin_delete(name).result()
    except ResourceNotFoundError:
        # (some tests are about a cluster that is gone)
        return


def cluster(name: str, **more) -> AmlCompute:
    return AmlCompute(name=name, **({"size": "Standard_DS3_v2", "min_instances": 0, "max_instances": 2} | more))


def test_a_cluster_from_beginning_to_end(ml_client, name):
    with pytest.raises(ResourceNotFoundError):
        ml_client.compute.get(name)
    made = ml_client.compute.begin_create_or_update(
        cluster(name, tier="low_priority", idle_time_before_scale_down=180, tags={"made-by": "phikit"})
    ).result()
    assert (made.provisioning_state, made.size, made.tier) == ("Succeeded", "Standard_DS3_v2", "low_priority")
    assert (made.min_instances, made.max_instances, made.idle_time_before_scale_down) == (0, 2, 180)
    found = ml_client.compute.get(name)
    assert found.tags == {"made-by": "phikit"}
    assert found.location == "eastus2"
    assert name in {one.name for one in ml_client.compute.list()}
    found.max_instances = 4
    assert ml_client.compute.begin_update(found).result().max_instances == 4
    assert list(ml_client.compute.list_nodes(name)) == []
    ml_client.compute.begin_delete(name).result()
    with pytest.raises(ResourceNotFoundError):
        ml_client.compute.get(name)


def test_nodes_at_rest(ml_client, name):
    ml_client.compute.begin_create_or_update(cluster(name, min_instances=1)).result()
    # (the SDK leaves the values in the names that they have on the wire, and its own attributes empty)
    assert [vars(one)["nodeState"] for one in ml_client.compute.list_nodes(name)] == ["idle"]
    usages = {one.name["value"]: one for one in ml_client.compute.list_usage() if "lowPriority" not in one.type}
    assert vars(usages["standardDSv2Family"])["currentValue"] == 4


def test_a_resize_by_hand(ml_client, name):
    arm = Arm()
    ml_client.compute.begin_create_or_update(cluster(name)).result()
    scale = {"minNodeCount": 0, "maxNodeCount": 3, "nodeIdleTimeBeforeScaleDown": "PT5M"}
    body = {"properties": {"properties": {"scaleSettings": scale}}}
    assert arm.call("PATCH", f"{BASE}/computes/{name}", json=body).status_code == 200
    while ml_client.compute.get(name).provisioning_state != "Succeeded":
        time.sleep(0.1)
    found = ml_client.compute.get(name)
    assert (found.max_instances, found.idle_time_before_scale_down) == (3, 300)


def test_a_cluster_with_an_identity(ml_client, name):
    identity = ManagedIdentityConfiguration(
        resource_id=resource_id("userAssignedIdentities", IDENTITY, "Microsoft.ManagedIdentity")
    )
    made = ml_client.compute.begin_create_or_update(
        cluster(name, identity=IdentityConfiguration(type="user_assigned", user_assigned_identities=[identity]))
    ).result()
    assert vars(made.identity.user_assigned_identities[0])["clientId"]
    lost = ManagedIdentityConfiguration(resource_id=identity.resource_id + "-nobody")
    with pytest.raises(HttpResponseError, match="was not found") as refused:
        ml_client.compute.begin_create_or_update(
            cluster(f"{name}b", identity=IdentityConfiguration(type="user_assigned", user_assigned_identities=[lost]))
        )
    assert refused.value.error.code == "FailedIdentityOperation"


@pytest.mark.parametrize("wrong", ["ab", "1cluster", "a" * 25, "has_line", "cluster-1", "cluster-"])
def test_names_that_no_cluster_may_have(ml_client, wrong):
    with pytest.raises(HttpResponseError) as refused:
        ml_client.compute.begin_create_or_update(cluster(wrong))
    assert refused.value.status_code == 400
    assert "3 and 24 characters" in str(refused.value)


@pytest.mark.parametrize("name", ["gpu-nc24s-a100-v4", "cpu-e16s-v3"])
def test_names_of_the_tutorial(ml_client, name):
    size = "Standard_NC24ads_A100_v4" if name.startswith("gpu") else "Standard_E16s_v3"
    made = ml_client.compute.begin_create_or_update(cluster(name, size=size, max_instances=1)).result()
    assert made.provisioning_state == "Succeeded"
    ml_client.compute.begin_delete(name).result()


@pytest.mark.parametrize("change", [{"min_instances": 3}, {"max_instances": 0}, {"min_instances": -1}])
def test_sizes_that_do_not_go_together(ml_client, name, change):
    with pytest.raises(HttpResponseError) as refused:
        ml_client.compute.begin_create_or_update(cluster(name, **change))
    assert refused.value.error.code == "BadRequest"


def test_a_cluster_without_a_size(ml_client, name):
    sent = {"computeType": "AmlCompute", "properties": {"scaleSettings": {"maxNodeCount": 1}}}
    answer = Arm().put(f"{BASE}/computes/{name}", {"location": "eastus2", "properties": sent})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")
    assert "vmSize" in answer.text
    assert name not in [one.name for one in ml_client.compute.list()]


def test_what_cannot_be_changed(ml_client, name):
    ml_client.compute.begin_create_or_update(cluster(name)).result()
    with pytest.raises(HttpResponseError, match="vmSize cannot be changed"):
        ml_client.compute.begin_create_or_update(cluster(name, size="Standard_E4s_v3"))
    with pytest.raises(HttpResponseError, match="vmPriority cannot be changed"):
        ml_client.compute.begin_create_or_update(cluster(name, tier="low_priority"))


def test_no_quota(ml_client, name, rehearsal):
    rehearsal.refuse("quota", times=1)
    with pytest.raises(HttpResponseError, match="has a Standard DSv2 family vCPU quota of 0") as refused:
        ml_client.compute.begin_create_or_update(cluster(name)).result()
    assert refused.value.error.code == "ClusterMinNodesExceedCoreQuota"
    assert "maps to 4 vCPUs" in str(refused.value)
    found = ml_client.compute.get(name)
    assert (found.provisioning_state, found.provisioning_errors) == ("Failed", "ClusterMinNodesExceedCoreQuota")
    # once there is quota the same call goes through, also with another size
    made = ml_client.compute.begin_create_or_update(cluster(name, size="Standard_E4s_v3")).result()
    assert (made.provisioning_state, made.size, made.provisioning_errors) == ("Succeeded", "Standard_E4s_v3", None)


def test_no_quota_for_low_priority(ml_client, name, rehearsal):
    rehearsal.refuse("quota", times=1)
    with pytest.raises(HttpResponseError, match="total low-priority vCPU quota of 0"):
        ml_client.compute.begin_create_or_update(cluster(name, tier="low_priority")).result()


def test_more_nodes_at_rest_than_the_quota_holds(ml_client, name):
    with pytest.raises(HttpResponseError, match="at least 3 requested managed compute nodes which maps to 72 vCPUs"):
        ml_client.compute.begin_create_or_update(
            cluster(name, size="Standard_NC24ads_A100_v4", min_instances=3, max_instances=3)
        ).result()


def test_a_size_that_the_region_does_not_offer(ml_client, name, rehearsal):
    with pytest.raises(HttpResponseError) as refused:
        ml_client.compute.begin_create_or_update(cluster(name, size="Standard_B2s")).result()
    assert refused.value.error.code == "InvalidPropertyValue"
    assert "Standard_B2s" in refused.value.error.message
    assert "STANDARD_E4S_V3" in refused.value.error.details[0].message
    rehearsal.refuse("sku", times=1)
    with pytest.raises(HttpResponseError, match="not a supported VM size"):
        ml_client.compute.begin_create_or_update(cluster(name)).result()
    assert ml_client.compute.begin_create_or_update(cluster(name)).result().provisioning_state == "Succeeded"


def test_a_size_without_low_priority(ml_client, name):
    with pytest.raises(HttpResponseError, match="not allowed for LowPriority"):
        ml_client.compute.begin_create_or_update(
            cluster(name, size="Standard_NC40ads_H100_v5", tier="low_priority")
        ).result()


def test_slow_provisioning(ml_client, name, rehearsal):
    rehearsal.refuse("slow", times=1, seconds=2)
    begun = time.monotonic()
    poller = ml_client.compute.begin_create_or_update(cluster(name))
    assert ml_client.compute.get(name).provisioning_state == "Creating"
    with pytest.raises(HttpResponseError) as refused:
        ml_client.compute.begin_create_or_update(cluster(name))
    assert refused.value.status_code == 409
    assert poller.result().provisioning_state == "Succeeded"
    assert time.monotonic() - begun >= 2


def test_other_kinds_of_compute(ml_client, name):
    from azure.ai.ml.entities import ComputeInstance

    with pytest.raises(HttpResponseError, match="AmlCompute"):
        ml_client.compute.begin_create_or_update(ComputeInstance(name=name, size="Standard_DS3_v2"))


def test_a_delete_says_what_it_deletes(ml_client, name):
    answer = Arm().call("DELETE", f"{BASE}/computes/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")


def test_clusters_survive_a_restart(tmp_path, monkeypatch):
    session.ensure_up(tmp_path)
    try:
        for name, value in session.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        client = MLClient(EnvironmentCredential(), SUBSCRIPTION, GROUP, WORKSPACE)
        client.compute.begin_create_or_update(cluster("kept")).result()
        client.compute.begin_create_or_update(cluster("gone")).result()
        store = Store(tmp_path / "state.db")
        Refusals(store).switch_on("slow", seconds=600)
        client.compute.begin_create_or_update(cluster("begun"))
        client.compute.begin_delete("gone")
        Refusals(store).switch_off()
        store.close()
        assert client.compute.get("gone").provisioning_state == "Deleting"
        session.end(tmp_path)
        session.ensure_up(tmp_path)
        # what was under way has come to its end
        monkeypatch.setenv("HTTPS_PROXY", session.environment(tmp_path)["HTTPS_PROXY"])
        assert {one.name: one.provisioning_state for one in client.compute.list()} == {
            "kept": "Succeeded",
            "begun": "Failed",
        }
        assert client.compute.get("begun").provisioning_errors == "OperationInterrupted"
        # made again, it is whole
        made = client.compute.begin_create_or_update(cluster("begun")).result()
        assert (made.provisioning_state, made.provisioning_errors) == ("Succeeded", None)
    finally:
        session.end(tmp_path)
