"""The runtime image serves under Azure's contract, as serving/deployment.yaml states it.

python -m pytest tests/serving/containers/test_deployment.py
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.ai.ml import load_online_deployment, load_online_endpoint
from azure.ai.ml._local_endpoints.azureml_image_context import AzureMlImageContext
from docker.models.containers import Container
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from devtools.models import open_up
from devtools.settings import ROOT
from serving.settings import Settings as ServerSettings
from tests.serving.containers.requests import GREEDY, IMAGE, call
from tests.serving.models import ANSWER, QUESTION
from tests.serving.server import until
from tests.serving.test_clients import TUTORIAL

#: A uid that no passwd file knows.
STRANGER = "4321:4321"
DEPLOYMENT = load_online_deployment(ROOT / "serving" / "deployment.yaml")
#: Containers of a test that was killed are left: the program that would remove them is an image of its own to pull.
testcontainers_config.ryuk_disabled = True


@pytest.fixture(scope="module")
def registered(tiny_model, tmp_path_factory) -> Path:
    """A folder of registered models, as Azure mounts it: name, version, the model directory's own name."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    shutil.copytree(tiny_model, folder / "phikit" / "3" / "model")
    open_up(folder)
    return folder


def in_container(container: Container, command: str) -> str:
    code, output = container.exec_run(["bash", "-c", command])
    assert code == 0, output.decode()
    return output.decode().strip()


def bare() -> dict[str, Any]:
    """What a container gets that may do nothing beyond serving."""
    return {"user": STRANGER, "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}


def is_ready(container: Container, port: int) -> bool:
    container.reload()
    assert container.status != "exited", container.logs().decode()[-4000:]
    return call(port, "/ready")[0] == 200


def code_mounted(name: str) -> dict[str, dict[str, str]]:
    return {str(ROOT / "serving"): {"bind": name, "mode": "ro"}}


@contextmanager
def deployed(
    runtime: str, volumes: dict[str, dict[str, str]], environment: dict[str, str]
) -> Iterator[DockerContainer]:
    """A container with nothing of its own to run, as a managed endpoint starts it, from start to end."""
    (port,) = {route["port"] for route in DEPLOYMENT.environment.inference_config.values()}
    container = DockerContainer(runtime).with_exposed_ports(port).with_envs(**environment).with_kwargs(**bare())
    container.tmpfs = {"/tmp": ""}
    for host, mount in volumes.items():
        container.with_volume_mapping(host, mount["bind"], mount.get("mode", "ro"))
    with container:
        yield container


@pytest.fixture(scope="module")
def endpoint(runtime, registered) -> Iterator[tuple[Container, int]]:
    """The deployment as the SDK's own local endpoints lay it out, ready; and the port that leads to it."""
    code = DEPLOYMENT.code_configuration
    azure = AzureMlImageContext(
        endpoint_name=DEPLOYMENT.endpoint_name,
        deployment_name=DEPLOYMENT.name,
        yaml_code_directory_path=str((ROOT / "serving" / code.code).resolve()),
        yaml_code_scoring_script_file_name=code.scoring_script,
        model_directory_path=registered / "phikit" / "3",
        model_mount_path="phikit/3",
    )
    volumes = {host: mount for each in azure.volumes.values() for host, mount in each.items()}
    environment = azure.environment | DEPLOYMENT.environment_variables
    assert environment["AZUREML_MODEL_DIR"] == "/var/azureml-app/azureml-models/phikit/3"
    with deployed(runtime, volumes, environment) as container:
        port = int(container.get_exposed_port(5001))
        probe = DEPLOYMENT.readiness_probe
        seconds = probe.initial_delay + probe.period * probe.failure_threshold
        until(lambda: is_ready(container.get_wrapped_container(), port), "the probe's patience", min(seconds, 300))
        yield container.get_wrapped_container(), port


@pytest.mark.docker
def test_the_tutorial_s_request_is_answered_where_azure_sends_it(endpoint):
    routes = DEPLOYMENT.environment.inference_config
    _, port = endpoint
    status, body = call(port, routes["scoringRoute"]["path"], TUTORIAL)
    assert status == 200
    # the tutorial draws its answers: now and then another one comes
    (text,) = json.loads(body)
    assert text.startswith(f"{QUESTION} ") and len(text) > len(QUESTION) + 10
    status, body = call(port, routes["scoringRoute"]["path"], GREEDY)
    assert (status, json.loads(body)) == (200, [ANSWER])
    for probe in ("livenessRoute", "readinessRoute"):
        assert call(port, routes[probe]["path"])[0] == 200
    assert json.loads(call(port, "/version")[1])["limits"]["slots"] == ServerSettings().slots


@pytest.mark.docker
def test_it_runs_as_a_stranger_who_may_do_nothing(endpoint):
    container, _ = endpoint
    assert in_container(container, "id -u") == "4321"
    # the image's command became the server itself: signals reach it, and nothing is between
    words = in_container(container, "tr '\\0' ' ' </proc/1/cmdline").split()
    assert [Path(words[0]).name, *words[1:]] == ["python", "-m", "serving"]
    status = dict(
        line.split(":\t", 1) for line in in_container(container, "cat /proc/1/status").splitlines() if ":\t" in line
    )
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    in_container(container, "! touch /phikit/file 2>/dev/null && ! touch /var/azureml-app/serving/file 2>/dev/null")


@pytest.mark.docker
def test_no_request_leaves_a_word_in_the_log(endpoint):
    container, port = endpoint
    assert call(port, "/score", json.dumps({"input_data": ["a secret question"]}).encode())[0] == 200
    log = container.logs().decode()
    assert '"path": "/score"' in log
    assert "secret" not in log
    assert ANSWER not in log


@pytest.mark.docker
@pytest.mark.parametrize(
    ("place", "root"),
    [
        # the uploaded folder by another name; the scoring script one folder further down; the folder itself
        ("/var/azureml-app/4f0c", "/var/azureml-app/4f0c/"),
        ("/var/azureml-app/4f0c/serving", "/var/azureml-app/4f0c"),
        ("/var/azureml-app/4f0c/serving", "/var/azureml-app"),
        ("/phikit/serving", ""),
    ],
)
def test_the_code_is_found_wherever_it_was_put(engine, runtime, place, root):
    environment = {"AML_APP_ROOT": root, "PHIKIT_SERVE_MODEL": "/nowhere"}
    if root == "/var/azureml-app":
        # nothing is at the root itself: what lies below it is looked through
        del environment["AML_APP_ROOT"]
    done = engine.containers.create(
        runtime, environment=environment, volumes=code_mounted(place), tmpfs={"/tmp": ""}, **bare()
    )
    try:
        done.start()
        assert done.wait(timeout=120)["StatusCode"] == 2
        assert done.logs().decode().startswith("error: /nowhere: there is no such folder")
    finally:
        done.remove(force=True)


@pytest.mark.docker
def test_without_code_it_says_what_is_missing(engine, runtime):
    done = engine.containers.create(runtime, **bare())
    try:
        done.start()
        assert done.wait(timeout=120)["StatusCode"] == 2
        (line,) = done.logs().decode().splitlines()
        assert line.startswith("error: no serving code in AML_APP_ROOT (unset), /phikit or /var/azureml-app: mount")
    finally:
        done.remove(force=True)


def test_azure_s_own_loader_reads_the_endpoint_and_the_deployment():
    endpoint = load_online_endpoint(ROOT / "serving" / "endpoint.yaml")
    assert endpoint.auth_mode == "key"
    assert DEPLOYMENT.endpoint_name == endpoint.name
    assert DEPLOYMENT.environment.image == IMAGE
    code = DEPLOYMENT.code_configuration
    assert (ROOT / "serving" / code.code / code.scoring_script).is_file()
    # what goes to Azure can be made of it
    assert endpoint._to_rest_online_endpoint("westeurope")
    assert DEPLOYMENT._to_rest_object("westeurope").properties.endpoint_compute_type == "Managed"


def test_the_deployment_s_limits_are_the_server_s():
    told = {name: str(value) for name, value in DEPLOYMENT.environment_variables.items()}
    settings = ServerSettings.load(told | {"AZUREML_MODEL_DIR": "/var/azureml-app/azureml-models/phikit/3"})
    request = DEPLOYMENT.request_settings
    assert request.max_concurrent_requests_per_instance == settings.slots + settings.queue
    # the server's own deadline comes first; 180 s is the longest that Azure takes
    assert settings.deadline * 1000 < request.request_timeout_ms <= 180_000
    assert {route["port"] for route in DEPLOYMENT.environment.inference_config.values()} == {settings.port}
    assert settings.host == "0.0.0.0"
    assert settings.drain < 30


def test_the_upload_leaves_out_what_python_makes():
    assert "__pycache__/" in (ROOT / "serving" / ".amlignore").read_text().splitlines()
