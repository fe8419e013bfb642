"""The kit's own scoring server behind a managed endpoint, in a process and in a container.

python -m pytest tests/rehearsal/endpoints/test_kit_serving.py
"""

import pytest
from azure.ai.ml import load_online_deployment
from azure.ai.ml.entities import CodeConfiguration, Environment, Model, ProbeSettings

from devtools.settings import ROOT
from tests.rehearsal.endpoints.small_serving import IMAGE, Serving

KIT = load_online_deployment(ROOT / "serving" / "deployment.yaml")


@pytest.fixture(scope="module", params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def runner(request) -> str:
    if request.param == "docker":
        request.getfixturevalue("runtime_image")
    return request.param


def test_the_kit_s_own_server_answers(serving: Serving, random_model):
    """serving/deployment.yaml as it is, but for its image's name, its model, and less patience before a probe."""
    model = serving.ml.models.create_or_update(
        Model(name="random", version="1", path=str(random_model), type="mlflow_model")
    )
    environment = Environment(name="kit", version="1", image=IMAGE, inference_config=KIT.environment.inference_config)
    endpoint = serving.endpoint()
    serving.deploy(
        endpoint,
        model=model,
        environment=serving.ml.environments.create_or_update(environment),
        code_configuration=CodeConfiguration(
            code=str(ROOT / "serving"), scoring_script=KIT.code_configuration.scoring_script
        ),
        environment_variables=KIT.environment_variables,
        request_settings=KIT.request_settings,
        liveness_probe=KIT.liveness_probe,
        readiness_probe=ProbeSettings(initial_delay=1, period=1, timeout=5, failure_threshold=90),
        instance_type=KIT.instance_type,
    )
    serving.give(endpoint, blue=100)
    question = {"input_data": ["Who founded Microsoft?"], "params": {"max_new_tokens": 8}}
    answer = serving.ask(endpoint, question)
    assert answer.status_code == 200
    assert len(answer.json()) == 1
    chat = {"model": "phikit", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": True}
    streamed = serving.ask(endpoint, chat, path="/v1/chat/completions")
    assert streamed.text.rstrip().endswith("data: [DONE]")
    # what it refuses comes as a model error, in its own words
    refused = serving.ask(endpoint, {"input_data": 3})
    assert (refused.status_code, refused.headers["ms-azureml-model-error-statuscode"]) == (424, "400")
    assert "input_data" in refused.text
    assert '"path": "/score"' in serving.ml.online_deployments.get_logs("blue", endpoint, lines=100)
    serving.ml.online_endpoints.begin_delete(endpoint).result()
