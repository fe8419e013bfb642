"""Schemathesis against the server's own OpenAPI document: what it says of itself is what it does."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.serving.server import DEADLINE, ROUTES, Server, serving

KEY = "a-key-for-schemathesis"
#: What a schema cannot say, so that requests that fit it are refused with 400: that a conversation ends with a user
#: message, that prompt and answer fit the context, that exactly one of MLflow's formats is sent, that a text is no half
#: of a surrogate pair. Everything else is schemathesis' own: all checks, all phases.
CONFIGURATION = """
[generation]
max-examples = 15
deterministic = true
database = "none"

[checks]
positive_data_acceptance.expected-statuses = [200, 400]
"""


@pytest.fixture(scope="module")
def server(exported_model, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    limits = {"slots": 8, "max_tokens": 4, "context": 256, "patience": 1}
    with serving(exported_model, folder, engine="onnx", precision="float32", key=KEY, **limits) as server:
        yield server
        server.is_healthy()
        assert "Traceback" not in server.err


def test_it_does_what_it_says(server, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"]
    command += [f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}", "--no-color"]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_route_is_documented(server):
    paths = server.ask("/openapi.json").json["paths"]
    models = {"/v1/models", "/v1/models/{model}"}
    assert {"/ping", "/health", "/ready", "/version", "/metrics", *models, *ROUTES} == set(paths)
    for path in ROUTES:
        assert {"200", "400", "401", "408", "413", "415", "429", "503"} <= set(paths[path]["post"]["responses"])
        assert paths[path]["post"]["security"]
    assert not [path for path in ("/ping", "/health", "/ready") if "security" in paths[path]["get"]]


def test_the_document_needs_no_other_host(server):
    assert "http" not in server.ask("/openapi.json").body.decode().replace('"type":"http"', "")
