"""What the service refuses of endpoints and deployments, by itself or because it was told to, and what is left then.

python -m pytest tests/rehearsal/endpoints/test_refusals.py
"""

import time

import pytest
from azure.ai.ml.entities import Environment, IdentityConfiguration, ManagedIdentityConfiguration, ProbeSettings
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from devtools.rehearsal import resource_id
from devtools.rehearsal.workspaces.documents import IDENTITY_ID
from tests.rehearsal.endpoints.small_serving import IMAGE, ROUTES, Serving, misfits
from tests.serving.server import until

OWN_IDENTITY = IdentityConfiguration(
    type="user_assigned", user_assigned_identities=[ManagedIdentityConfiguration(resource_id=IDENTITY_ID)]
)


@pytest.fixture(scope="module")
def endpoint(serving: Serving) -> str:
    """An endpoint with a deployment, blue, that answers."""
    name = serving.endpoint()
    serving.deploy(name)
    serving.give(name, blue=100)
    return name


def message_of(refused: pytest.ExceptionInfo[HttpResponseError]) -> str:
    """What a person is shown."""
    return str(refused.value)


def state(serving: Serving, endpoint: str, deployment: str) -> str:
    return serving.ml.online_deployments.get(deployment, endpoint).provisioning_state


# endpoints


@pytest.mark.parametrize("name", ["ab", "a" * 33, "1abc", "has_line", "abc-"])
def test_names_that_no_endpoint_may_have(arm, serving, name):
    # (by hand: the SDK knows most of this too)
    body = {"location": "eastus2", "identity": {"type": "SystemAssigned"}, "properties": {"authMode": "Key"}}
    answer = arm.put(serving.id_of(name), body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "BadRequest")
    assert error["details"][0]["code"] == "InferencingClientCallFailed"
    assert "name" in error["details"][0]["message"]


def test_a_name_that_is_taken(serving, rehearsal):
    rehearsal.refuse("name-taken", times=1)
    with pytest.raises(HttpResponseError) as refused:
        serving.endpoint()
    assert refused.value.status_code == 400
    assert "There is already an endpoint with this name" in message_of(refused)
    # the next one is free
    serving.ml.online_endpoints.begin_delete(serving.endpoint()).result()


def test_an_identity_that_is_not_there(serving):
    missing = resource_id("userAssignedIdentities", "nobody", "Microsoft.ManagedIdentity")
    with pytest.raises(HttpResponseError) as refused:
        serving.endpoint(
            identity=IdentityConfiguration(
                type="user_assigned", user_assigned_identities=[ManagedIdentityConfiguration(resource_id=missing)]
            )
        )
    assert refused.value.error.code == "FailedIdentityOperation"
    assert f"Resource '{missing}' was not found" in message_of(refused)


@pytest.mark.parametrize(
    ("traffic", "said"),
    [({"blue": 90}, "sum to 90"), ({"blue": 60, "green": 40}, "green"), ({"blue": 101}, "from 0 to 100")],
)
def test_traffic_that_cannot_be(serving, endpoint, traffic, said):
    with pytest.raises(HttpResponseError) as refused:
        serving.give(endpoint, **traffic)
    assert refused.value.status_code == 400
    assert said in message_of(refused)
    assert serving.ml.online_endpoints.get(endpoint).traffic == {"blue": 100}


def test_what_is_not_there(serving, endpoint):
    with pytest.raises(ResourceNotFoundError):
        serving.ml.online_endpoints.get("nobody")
    with pytest.raises(ResourceNotFoundError):
        serving.ml.online_deployments.get("nobody", endpoint)
    with pytest.raises(ResourceNotFoundError):
        serving.deploy("nobody")


# deployments that are not taken


def test_a_model_and_an_environment_that_are_not_there(serving, endpoint):
    for wrong in ({"model": "azureml:nobody:1"}, {"environment": "azureml:nobody:1"}):
        with pytest.raises(ResourceNotFoundError, match="nobody:1 not found"):
            serving.deploy(endpoint, "green", **wrong)
    assert [one.name for one in serving.ml.online_deployments.list(endpoint)] == ["blue"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instance_type": "Standard_Nothing_v9"}, "The VM size Standard_Nothing_v9 is not supported"),
        ({"instance_count": 51}, "instance count must be"),
        ({"instance_type": "Standard_NC40ads_H100_v5"}, "Current usage/limit: 0/0. Additional needed: 80"),
        ({"readiness_probe": ProbeSettings(period=1, success_threshold=0)}, "successThreshold"),
    ],
)
def test_deployments_that_are_not_taken(serving, endpoint, options, said):
    with pytest.raises(HttpResponseError) as refused:
        serving.deploy(endpoint, "green", **options)
    assert refused.value.status_code == 400
    assert said in message_of(refused)


@pytest.mark.parametrize(
    ("refusal", "said"), [("quota", "Not enough quota available for Standard_F2s_v2"), ("sku", "is not supported")]
)
def test_no_quota_and_no_such_size(serving, endpoint, rehearsal, refusal, said):
    rehearsal.refuse(refusal, times=1)
    with pytest.raises(HttpResponseError) as refused:
        serving.deploy(endpoint, "green")
    assert refused.value.status_code == 400
    assert "InferencingClientCreateDeploymentFailed" in message_of(refused)
    assert said in message_of(refused)
    assert [one.name for one in serving.ml.online_deployments.list(endpoint)] == ["blue"]


# deployments that fail


def test_an_image_that_cannot_be_pulled(serving, endpoint, rehearsal):
    rehearsal.refuse("image-pull", times=1)
    with pytest.raises(HttpResponseError) as refused:
        serving.deploy(endpoint, "green")
    assert refused.value.error.code == "BadArgument"
    assert f"Unable to download user container image {IMAGE}" in message_of(refused)
    assert "ImagePullFailed" in serving.ml.online_deployments.get_logs("green", endpoint, lines=20)
    assert state(serving, endpoint, "green") == "Failed"
    serving.ml.online_deployments.begin_delete("green", endpoint).result()


def test_an_identity_that_may_not_pull(serving, rehearsal, arm):
    registry = serving.ml.workspaces.get().container_registry
    server = arm.get(registry).json()["properties"]["loginServer"]
    environment = Environment(name="pulled", version="1", image=f"{server}/runtime:1", inference_config=ROUTES)
    environment = serving.ml.environments.create_or_update(environment)
    name = serving.endpoint(identity=OWN_IDENTITY)
    rehearsal.refuse("role", times=1, on="registries/pull")
    with pytest.raises(HttpResponseError) as refused:
        serving.deploy(name, environment=environment)
    assert refused.value.error.code == "BadArgument"
    assert "does not have pull permission on the registry" in message_of(refused)
    serving.ml.online_deployments.begin_delete("blue", name).result()
    # a role that nobody gave it
    held = arm.get(f"{registry}/providers/Microsoft.Authorization/roleAssignments").json()["value"]
    principal = arm.get(serving.id_of(name)).json()["identity"]["userAssignedIdentities"][IDENTITY_ID]["principalId"]
    taken = [one for one in held if one["properties"]["principalId"] == principal]
    for one in taken:
        arm.call("DELETE", one["id"])
    with pytest.raises(HttpResponseError, match="does not have pull permission on the registry"):
        serving.deploy(name, environment=environment)
    serving.ml.online_deployments.begin_delete("blue", name).result()
    for one in taken:
        arm.put(one["id"], {"properties": one["properties"]})
    serving.deploy(name, environment=environment)
    serving.ml.online_endpoints.begin_delete(name).result()


def test_a_probe_that_is_made_to_fail(serving, endpoint, rehearsal):
    rehearsal.refuse("probe", times=1)
    with pytest.raises(HttpResponseError) as refused:
        serving.deploy(endpoint, "green")
    assert refused.value.error.code == "ResourceNotReady"
    assert "Readiness probe failed: HTTP probe failed with statuscode: 503" in message_of(refused)
    assert "serving as green" in serving.ml.online_deployments.get_logs("green", endpoint, lines=20)
    # it stays as it is: only deleting it helps
    with pytest.raises(HttpResponseError, match=r"in an unrecoverable state. Delete and re-create"):
        serving.deploy(endpoint, "green")
    serving.ml.online_deployments.begin_delete("green", endpoint).result()
    serving.deploy(endpoint, "green")
    assert serving.ask(endpoint, deployment="green").json()["answer"] == "green"
    serving.ml.online_deployments.begin_delete("green", endpoint).result()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variables": {"DIE_AT_START": "1"}}, "The container ended with exit code 1"),
        ({"variables": {"UNWELL": "1"}}, "Liveness probe failed: HTTP probe failed with statuscode: 500"),
        ({"variables": {"READY_AFTER": "60"}, "probe": {"failure_threshold": 2}}, "Readiness probe failed"),
    ],
)
def test_a_container_that_never_gets_ready(serving, endpoint, options, said):
    if "UNWELL" in options["variables"]:
        options |= {"liveness_probe": ProbeSettings(initial_delay=1, period=1, timeout=1, failure_threshold=1)}
        options |= {"variables": options["variables"] | {"READY_AFTER": "60"}}
    with pytest.raises(HttpResponseError) as refused:
        serving.deploy(endpoint, "green", **options)
    assert refused.value.error.code == "ResourceNotReady"
    assert f"User container has crashed or terminated: {said}" in message_of(refused)
    log = serving.ml.online_deployments.get_logs("green", endpoint, lines=20)
    assert ("there is no model to serve" in log) == ("DIE_AT_START" in options["variables"])
    # the one that answered goes on
    assert serving.ask(endpoint).json()["answer"] == "blue"
    serving.ml.online_deployments.begin_delete("green", endpoint).result()


def test_an_update_that_fails_leaves_what_was_there(serving, endpoint):
    with pytest.raises(HttpResponseError):
        serving.deploy(endpoint, "blue", variables={"ANSWER": "new", "DIE_AT_START": "1"})
    assert state(serving, endpoint, "blue") == "Failed"
    assert serving.ask(endpoint).json()["answer"] == "blue"
    # and the next update goes on from there
    serving.deploy(endpoint, "blue", variables={"ANSWER": "newer"})
    assert serving.ask(endpoint).json()["answer"] == "newer"
    serving.deploy(endpoint, "blue")


# two at once


def test_what_is_being_done_is_not_done_twice(serving, endpoint, rehearsal):
    rehearsal.refuse("slow", times=1, seconds=30)
    poller = serving.ml.online_deployments.begin_create_or_update(serving.deployment(endpoint, "green"))
    with pytest.raises(HttpResponseError) as refused:
        serving.deploy(endpoint, "green")
    assert (refused.value.status_code, refused.value.error.code) == (409, "Conflict")
    begun = time.monotonic()
    # deleting it gives it up
    serving.ml.online_deployments.begin_delete("green", endpoint).result()
    with pytest.raises(HttpResponseError) as given_up:
        poller.result()
    assert given_up.value.error.code == "OperationCanceled"
    assert time.monotonic() - begun < 15
    with pytest.raises(ResourceNotFoundError):
        serving.ml.online_deployments.get("green", endpoint)


def test_an_endpoint_that_is_being_made(serving, rehearsal, arm):
    rehearsal.refuse("slow", times=1, seconds=3)
    body = {"location": "eastus2", "identity": {"type": "SystemAssigned"}, "properties": {"authMode": "Key"}}
    path = serving.id_of("slow-to-come")
    assert arm.put(path, body).json()["properties"]["provisioningState"] == "Creating"
    assert arm.put(path, body).status_code == 409
    with pytest.raises(HttpResponseError) as refused:
        serving.deploy("slow-to-come")
    assert refused.value.status_code == 409
    assert "because it is in Creating provisioning state" in message_of(refused)
    until(lambda: arm.get(path).json()["properties"]["provisioningState"] == "Succeeded", "it is made")
    serving.ml.online_endpoints.begin_delete("slow-to-come").result()


def test_all_answers_so_far_fit_the_models_that_the_sdk_reads_them_with(rehearsal):
    assert misfits(rehearsal) == []
