"""Managed online endpoints through the SDK: made, served by real processes, changed, restarted, deleted.

python -m pytest tests/rehearsal/endpoints/test_endpoints.py
"""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from azure.ai.ml.entities import IdentityConfiguration, ManagedIdentityConfiguration
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from devtools.rehearsal import GROUP, WORKSPACE, resource_id, session
from devtools.rehearsal.workspaces.documents import IDENTITY_CLIENT, IDENTITY_ID, IDENTITY_PRINCIPAL
from tests.rehearsal.endpoints.small_serving import Serving, misfits
from tests.serving.server import until

BASE = resource_id("workspaces", WORKSPACE) + "/onlineEndpoints"


@pytest.fixture(scope="module")
def deployed(serving: Serving) -> str:
    """An endpoint with a deployment, `blue`, that has all of its traffic. Leave it as it is."""
    endpoint = serving.endpoint(tags={"team": "words"}, description="for tests")
    serving.deploy(endpoint, variables={"COLOUR": "blue"}, tags={"made-by": "phikit"})
    serving.give(endpoint, blue=100)
    return endpoint


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_endpoint(ml_client, deployed):
    found = ml_client.online_endpoints.get(deployed)
    assert found.provisioning_state == "Succeeded"
    assert found.scoring_uri == f"https://{deployed}.eastus2.inference.ml.azure.com/score"
    assert found.openapi_uri == f"https://{deployed}.eastus2.inference.ml.azure.com/swagger.json"
    assert (found.auth_mode, found.location, found.kind) == ("key", "eastus2", "Managed")
    assert (found.tags, found.description) == ({"team": "words"}, "for tests")
    assert found.traffic == {"blue": 100}
    assert found.identity.type == "system_assigned"
    assert found.identity.principal_id
    assert deployed in {one.name for one in ml_client.online_endpoints.list()}


def test_a_deployment(ml_client, deployed):
    found = ml_client.online_deployments.get("blue", deployed)
    assert found.provisioning_state == "Succeeded"
    assert (found.instance_type, found.instance_count) == ("Standard_F2s_v2", 1)
    assert found.environment_variables["COLOUR"] == "blue"
    assert found.tags == {"made-by": "phikit"}
    assert (found.readiness_probe.period, found.readiness_probe.failure_threshold) == (1, 30)
    assert found.request_settings.request_timeout_ms == 20_000
    assert [one.name for one in ml_client.online_deployments.list(deployed)] == ["blue"]


def test_it_answers_with_its_model_and_its_code(ml_client, serving, deployed, tmp_path):
    question = tmp_path / "question.json"
    question.write_text('{"input_data": ["Who founded Microsoft?"]}')
    said = ml_client.online_endpoints.invoke(deployed, request_file=str(question), deployment_name="blue")
    assert '"model": ["small"]' in said
    answer = serving.ask(deployed)
    assert answer.json()["answer"] == "blue"
    assert answer.json()["script"] == "__main__.py"
    # the scoring route, by whatever name it has in the container
    assert answer.json()["path"] == "/answer"


def test_its_log(ml_client, deployed):
    log = ml_client.online_deployments.get_logs("blue", deployed, lines=50)
    assert "UserContainerStart: Succeeded" in log
    assert "Name: ContainerReady" in log
    assert log.rstrip().endswith("serving as blue")
    fetched = ml_client.online_deployments.get_logs("blue", deployed, lines=50, container_type="storage-initializer")
    assert "weights.txt: 1 files downloaded to /var/azureml-app/azureml-models/small-" in fetched


def test_keys(ml_client, serving, rehearsal):
    endpoint = serving.endpoint()
    serving.deploy(endpoint)
    serving.give(endpoint, blue=100)
    before = ml_client.online_endpoints.get_keys(endpoint)
    assert before.primary_key != before.secondary_key
    ml_client.online_endpoints.begin_regenerate_keys(endpoint, key_type="primary").result()
    after = ml_client.online_endpoints.get_keys(endpoint)
    assert after.primary_key not in (before.primary_key, before.secondary_key)
    assert after.secondary_key == before.secondary_key
    asked = {key: serving.ask(endpoint, key=key).status_code for key in (*vars_of(before), after.primary_key)}
    assert asked == {before.primary_key: 401, before.secondary_key: 200, after.primary_key: 200}
    ml_client.online_endpoints.begin_regenerate_keys(endpoint, key_type="secondary").result()
    assert serving.ask(endpoint, key=before.secondary_key).status_code == 401
    # no key is in what was written down of all that
    written = (rehearsal.home / "calls.jsonl").read_text()
    for key in (*vars_of(before), *vars_of(after)):
        assert key not in written
    ml_client.online_endpoints.begin_delete(endpoint).result()


def vars_of(keys) -> tuple[str, str]:
    return keys.primary_key, keys.secondary_key


def test_an_endpoint_that_takes_tokens(serving):
    endpoint = serving.endpoint(auth_mode="aml_token")
    serving.deploy(endpoint)
    serving.give(endpoint, blue=100)
    token = serving.ml.online_endpoints.get_keys(endpoint)
    assert token.expiry_time_utc > time.time()
    assert serving.ask(endpoint, key=token.access_token).status_code == 200
    assert serving.ask(endpoint, key="nobody's").status_code == 401
    with pytest.raises(HttpResponseError, match="has no keys"):
        serving.ml.online_endpoints._online_operation.list_keys(GROUP, WORKSPACE, endpoint)
    serving.ml.online_endpoints.begin_delete(endpoint).result()


def test_a_user_assigned_identity(ml_client, serving, arm):
    own = IdentityConfiguration(
        type="user_assigned", user_assigned_identities=[ManagedIdentityConfiguration(resource_id=IDENTITY_ID)]
    )
    endpoint = serving.endpoint(identity=own)
    (assigned,) = ml_client.online_endpoints.get(endpoint).identity.user_assigned_identities
    assert assigned.resource_id == IDENTITY_ID
    # (the SDK leaves the ids out)
    told = arm.get(f"{BASE}/{endpoint}").json()["identity"]
    ids = {"clientId": IDENTITY_CLIENT, "principalId": IDENTITY_PRINCIPAL}
    assert told["userAssignedIdentities"] == {IDENTITY_ID: ids}
    ml_client.online_endpoints.begin_delete(endpoint).result()


def test_deployments_are_deleted_once_they_have_no_traffic_and_endpoints_with_them(ml_client, serving):
    endpoint = serving.endpoint()
    for name in ("blue", "green"):
        serving.deploy(endpoint, name)
    serving.give(endpoint, blue=100)
    processes = [serving.ask(endpoint, deployment=name).json()["process"] for name in ("blue", "green")]
    with pytest.raises(HttpResponseError, match="non-zero traffic") as refused:
        ml_client.online_deployments.begin_delete("blue", endpoint).result()
    assert refused.value.status_code == 400
    ml_client.online_deployments.begin_delete("green", endpoint).result()
    assert not is_alive(processes[1])
    with pytest.raises(ResourceNotFoundError):
        ml_client.online_deployments.get("green", endpoint)
    ml_client.online_endpoints.begin_delete(endpoint).result()
    assert not is_alive(processes[0])
    with pytest.raises(ResourceNotFoundError):
        ml_client.online_endpoints.get(endpoint)


def test_deleting_what_is_not_there(arm):
    assert arm.call("DELETE", f"{BASE}/nobody").status_code == 204


def test_two_instances(ml_client, serving, arm):
    endpoint = serving.endpoint()
    serving.deploy(endpoint, instance_count=2)
    serving.give(endpoint, blue=100)
    key = serving.key(endpoint)

    def processes() -> set[int]:
        """Those that answer when several are asked at once."""
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda _: serving.ask(endpoint, {"wait": 0.3}, key=key), range(4))
            return {answer.json()["process"] for answer in answers}

    answered = processes()
    assert len(answered) == 2
    skus = arm.get(f"{BASE}/{endpoint}/deployments/blue/skus").json()["value"]
    assert skus[0]["capacity"]["default"] == 2
    scaled = arm.call("PATCH", f"{BASE}/{endpoint}/deployments/blue", json={"sku": {"capacity": 1}, "tags": {"a": "b"}})
    assert scaled.status_code == 200
    deployments = ml_client.online_deployments
    until(lambda: deployments.get("blue", endpoint).provisioning_state == "Succeeded", "it is scaled")
    assert deployments.get("blue", endpoint).tags == {"a": "b"}
    assert len(processes()) == 1
    assert not any(is_alive(process) for process in answered)
    ml_client.online_endpoints.begin_delete(endpoint).result()


def test_a_container_that_dies_is_started_again(serving, ml_client):
    endpoint = serving.endpoint()
    serving.deploy(endpoint)
    serving.give(endpoint, blue=100)
    key = serving.key(endpoint)
    for problem, said in (("die", "ended with exit code 3"), ("sicken", "Liveness probe failed: HTTP probe failed")):
        process = serving.ask(endpoint, key=key).json()["process"]
        broken = serving.ask(endpoint, {problem: True}, key=key)
        if problem == "die":
            assert broken.status_code == 424
            assert broken.headers["ms-azureml-model-error-reason"] == "model_not_ready"
        until(lambda process=process: not is_alive(process), "it is gone")
        until(lambda: serving.ask(endpoint, key=key).status_code == 200, "another one answers")
        log = ml_client.online_deployments.get_logs("blue", endpoint, lines=50)
        assert said in log
        assert "Back-off" in log
    ml_client.online_endpoints.begin_delete(endpoint).result()


def test_metrics(serving, deployed, arm):
    key = serving.key(deployed)
    for status in (200, 200, 500):
        serving.ask(deployed, {"status": status}, key=key)
    wanted = {"metricnames": "RequestsPerMinute,RequestLatency_P95", "aggregation": "Total,Average"}
    path = f"{BASE}/{deployed}/providers/Microsoft.Insights/metrics"
    told = arm.get(path, params=wanted | {"$filter": "deployment eq 'blue'"}, version="2018-01-01").json()
    requests_, latency = told["value"]
    assert (requests_["name"]["value"], requests_["unit"]) == ("RequestsPerMinute", "Count")
    (series,) = requests_["timeseries"]
    assert series["metadatavalues"][0]["value"] == "blue"
    assert sum(minute["total"] for minute in series["data"]) >= 3
    assert any(minute.get("average", 0) > 0 for minute in latency["timeseries"][0]["data"])
    of_deployment = arm.get(f"{BASE}/{deployed}/deployments/blue/providers/Microsoft.Insights/metrics").json()
    assert sum(minute["average"] for minute in of_deployment["value"][0]["timeseries"][0]["data"]) >= 3
    odd = arm.get(path, params={"metricnames": "Smiles"})
    assert (odd.status_code, odd.json()["error"]["code"]) == (400, "BadRequest")


def test_endpoints_come_back_as_they_were_when_the_emulator_is_restarted(serving, deployed, ml_client, rehearsal):
    key, process = serving.key(deployed), serving.ask(deployed).json()["process"]
    session.end(rehearsal.home)
    assert not is_alive(process)
    with pytest.raises(requests.ConnectionError):
        serving.ask(deployed, key=key)
    session.ensure_up(rehearsal.home)
    # it is asked at once, while its container starts
    answer = serving.ask(deployed, key=key)
    assert (answer.status_code, answer.json()["answer"]) == (200, "blue")
    assert serving.key(deployed) == key
    assert ml_client.online_endpoints.get(deployed).traffic == {"blue": 100}
    assert ml_client.online_deployments.get("blue", deployed).provisioning_state == "Succeeded"
    # what it said before is still there
    assert "serving as blue" in ml_client.online_deployments.get_logs("blue", deployed, lines=50)


def test_what_was_being_made_when_the_emulator_was_killed_has_failed(serving, deployed, ml_client, rehearsal):
    rehearsal.refuse("slow", times=1, seconds=120)
    ml_client.online_deployments.begin_create_or_update(serving.deployment(deployed, "green"))
    process = serving.ask(deployed).json()["process"]
    os.kill(session.running(rehearsal.home)["pid"], signal.SIGKILL)
    until(lambda: not session.running(rehearsal.home), "it is gone")
    assert session.ensure_up(rehearsal.home)
    until(lambda: not is_alive(process), "what it left behind is ended")
    assert ml_client.online_deployments.get("green", deployed).provisioning_state == "Failed"
    assert serving.ask(deployed).json()["answer"] == "blue"
    with pytest.raises(HttpResponseError, match="unrecoverable"):
        serving.deploy(deployed, "green")
    ml_client.online_deployments.begin_delete("green", deployed).result()


def test_all_answers_so_far_fit_the_models_that_the_sdk_reads_them_with(rehearsal):
    assert misfits(rehearsal) == []
