"""`docker compose up` with every network but its own cut off: a browser asks, the tuned and the base model answer.

python -m pytest tests/e2e/page/test_compose.py
"""

import json
import os
import urllib.request
from collections.abc import Iterator

import pytest

from tests.serving.containers.requests import KEY
from tests.serving.containers.stack import Stack
from tests.serving.server import ANSWER, QUESTION

if not os.environ.get("CI"):
    pytest.importorskip("playwright", reason="playwright is not installed; run: make setup-test")
from playwright.sync_api import expect

from tests.e2e.browser import Tab, chromium

LOCAL = {"mlflow", "scoring", "scoring-base", "flow", "chat"}
AZURE = {"flow-azure", "chat-azure"}
#: No way out of it, and none in: what is published to this machine's loopback otherwise is reached by its address.
CUT_OFF = "networks: {default: {internal: true}}\n"

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stack(engine, tiny_model, tmp_path_factory) -> Iterator[Stack]:
    """All of it; the local scoring server in the managed endpoint's place too: wire and key are the same."""
    stack = Stack(tmp_path_factory.mktemp("checkout"), tiny_model, tiny_model.parent / "base")
    (stack.folder / "compose.override.yaml").write_text(CUT_OFF)
    try:
        stack.up(
            "--profile=compare",
            "--profile=azure",
            PHIKIT_SERVE_KEY=KEY,
            PHIKIT_CHAT_COMPARE="1",
            PHIKIT_ENDPOINT_URI="http://scoring:5001/score",
            PHIKIT_ENDPOINT_KEY=KEY,
        )
        yield stack
    finally:
        stack.down()


def address(engine, stack: Stack, service: str) -> str:
    """The service's address in the stack's own network."""
    (network,) = stack.container(engine, service).attrs["NetworkSettings"]["Networks"].values()
    return network["IPAddress"]


def test_the_flow_asks_the_model_and_its_base(engine, stack):
    answers = {}
    for model in ("tuned", "base"):
        body = json.dumps({"input_data": QUESTION, "model": model}).encode()
        url = f"http://{address(engine, stack, 'flow')}:8080/score"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            answers[model] = json.load(response)["answer"]
    assert answers["tuned"] == ANSWER
    assert answers["base"] != ANSWER


@pytest.mark.parametrize("service", ["chat", "chat-azure"])
def test_a_browser_reads_the_right_answer(engine, stack, tmp_path, service):
    host = address(engine, stack, service)
    with chromium(host) as browser:
        here = Tab(browser, f"http://{host}:7860", tmp_path)
        here.ask(QUESTION)
        here.done(1)
        expect(here.answers).to_have_text([ANSWER])
        here.reload()
        expect(here.answers).to_have_text([ANSWER])
        assert here.asked and not here.away()
        assert not here.errors


@pytest.mark.parametrize("service", sorted(LOCAL | AZURE))
def test_every_service_is_confined(engine, stack, service):
    container = stack.container(engine, service)
    assert container.health == "healthy"
    host, config = container.attrs["HostConfig"], container.attrs["Config"]
    assert config["User"] == "10001:10001"
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert "no-new-privileges:true" in host["SecurityOpt"]
    published = [binding["HostIp"] for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
    assert published == ([] if service == "flow-azure" else ["127.0.0.1"])
    written = {mount["Destination"] for mount in container.attrs["Mounts"] if mount["RW"]}
    assert written == ({"/phikit/history"} if service.startswith("chat") else set())
    assert KEY not in container.logs().decode()


def test_nothing_of_it_reaches_another_network(engine, stack):
    (name,) = stack.container(engine, "flow").attrs["NetworkSettings"]["Networks"]
    network = engine.networks.get(name)
    assert network.attrs["Internal"]
    # (nor had any of them another way out)
    assert {len(container.attrs["NetworkSettings"]["Networks"]) for container in network.containers} == {1}
    assert len(network.containers) == len(LOCAL | AZURE)


def test_without_the_managed_endpoints_address_its_flow_says_so(engine, tmp_path):
    for name in ("model", "checkout"):
        (tmp_path / name).mkdir()
    alone = Stack(tmp_path / "checkout", tmp_path / "model")
    try:
        done = alone.compose("--profile", "azure", "up", "--wait", "flow-azure")
        assert done.returncode != 0
        assert alone.container(engine, "flow-azure").wait()["StatusCode"] == 2
        assert "PHIKIT_ENDPOINT_URI: is not set" in alone.compose("--profile", "azure", "logs", "flow-azure").stdout
    finally:
        alone.down()
