"""Deployments in containers of the Docker engine: what they are given, who reaches them, when they go.

python -m pytest tests/rehearsal/endpoints/test_containers.py
"""

import pytest
from azure.core.exceptions import HttpResponseError

from devtools.rehearsal import session
from devtools.rehearsal.container_runner import LABEL
from tests.rehearsal.endpoints.small_serving import Load, Serving
from tests.serving.server import until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def runner(runtime_image) -> str:
    return "docker"


@pytest.fixture(scope="module")
def endpoint(serving: Serving) -> str:
    """An endpoint whose deployment, blue, answers from a container."""
    name = serving.endpoint()
    serving.deploy(name)
    serving.give(name, blue=100)
    return name


def containers(engine, rehearsal) -> list:
    return engine.containers.list(all=True, filters={"label": f"{LABEL}={rehearsal.home}"})


def test_it_answers_with_its_model_and_its_code(serving, endpoint):
    answer = serving.ask(endpoint).json()
    assert (answer["answer"], answer["model"], answer["script"]) == ("blue", ["small"], "__main__.py")
    assert "serving as blue" in serving.ml.online_deployments.get_logs("blue", endpoint, lines=20)


def test_what_the_container_is_given(engine, rehearsal, serving, endpoint):
    (container,) = containers(engine, rehearsal)
    told = dict(line.split("=", 1) for line in container.attrs["Config"]["Env"])
    assert told["AZUREML_MODEL_DIR"] == f"/var/azureml-app/azureml-models/{serving.model.name}/7"
    assert told["AML_APP_ROOT"] == "/var/azureml-app/serving"
    mounts = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
    assert mounts == {told["AZUREML_MODEL_DIR"]: False, told["AML_APP_ROOT"]: False}
    # only the front door leads there, and that asks for the key
    (published,) = container.attrs["HostConfig"]["PortBindings"]["5001/tcp"]
    assert published["HostIp"] == "127.0.0.1"


def test_a_container_that_dies_is_started_again(serving, endpoint):
    key = serving.key(endpoint)
    assert serving.ask(endpoint, {"die": True}, key=key).status_code == 424
    until(lambda: serving.ask(endpoint, key=key).status_code == 200, "another one answers")
    log = serving.ml.online_deployments.get_logs("blue", endpoint, lines=20)
    assert "The container ended with exit code 3" in log


def test_no_request_fails_while_a_container_takes_another_one_s_place(serving, endpoint, engine, rehearsal):
    (before,) = containers(engine, rehearsal)
    with Load(serving, endpoint) as load:
        until(lambda: load.told["blue"] > 20, "the load is on")
        serving.deploy(endpoint, variables={"ANSWER": "newer"})
        until(lambda: load.told["newer"] > 20, "the new one answers")
    assert load.failures == []
    (after,) = containers(engine, rehearsal)
    assert after.id != before.id


def test_containers_go_with_the_emulator_and_come_back_with_it(serving, endpoint, engine, rehearsal):
    key = serving.key(endpoint)
    session.end(rehearsal.home)
    assert containers(engine, rehearsal) == []
    session.ensure_up(rehearsal.home)
    assert serving.ask(endpoint, key=key).json()["answer"] == "newer"
    assert len(containers(engine, rehearsal)) == 1


def test_a_container_s_last_words(serving, endpoint, engine, rehearsal):
    with pytest.raises(HttpResponseError, match="The container ended with exit code 1") as refused:
        serving.deploy(endpoint, "green", variables={"DIE_AT_START": "1"})
    assert refused.value.error.code == "ResourceNotReady"
    assert "there is no model to serve" in serving.ml.online_deployments.get_logs("green", endpoint, lines=20)
    assert len(containers(engine, rehearsal)) == 1


def test_deleting_the_endpoint_removes_its_containers(serving, endpoint, engine, rehearsal):
    serving.ml.online_endpoints.begin_delete(endpoint).result()
    assert containers(engine, rehearsal) == []
