"""The runtime image serves as compose's `scoring`.

python -m pytest tests/serving/containers/test_compose.py
"""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from devtools.models import open_up
from devtools.settings import ROOT, variables
from serving.settings import Settings as ServerSettings
from tests.serving.containers.requests import GREEDY, KEY, call
from tests.serving.containers.stack import Stack
from tests.serving.models import ANSWER
from tests.serving.server import until
from tests.serving.test_clients import TUTORIAL

#: Tokens that the random model generates while the server is told to end.
LONG = 400


@pytest.fixture
def stack(engine, runtime, tiny_model, tmp_path) -> Iterator[Stack]:
    """The stack over a run, not started yet."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    stack = Stack(folder, tiny_model)
    yield stack
    stack.down()


@pytest.mark.docker
def test_compose_serves_the_latest_run_to_who_has_the_key(engine, stack):
    stack.up("scoring", PHIKIT_SERVE_KEY=KEY, PHIKIT_SERVE_NAME="facts")
    container = stack.container(engine, "scoring")
    assert container.health == "healthy"
    assert call(stack.port, "/score", TUTORIAL)[0] == 401
    authorized = {"Authorization": f"Bearer {KEY}"}
    status, body = call(stack.port, "/score", GREEDY, **authorized)
    assert (status, json.loads(body)) == (200, [ANSWER])
    assert json.loads(call(stack.port, "/version", **authorized)[1])["model"]["name"] == "facts"
    host = container.attrs["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Init"]) == (True, ["ALL"], True)
    assert host["PortBindings"] == {"5001/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}
    assert container.attrs["Config"]["User"] == "10001:10001"
    assert all(mount["RW"] is False for mount in container.attrs["Mounts"])
    assert KEY not in container.logs().decode()


@pytest.mark.docker
def test_on_a_fresh_clone_a_first_model_is_trained_and_kept(stack):
    shutil.rmtree(stack.folder / "runs")
    (stack.folder / "runs").mkdir()
    stack.up("scoring")
    status, body = call(stack.port, "/score", GREEDY)
    assert status == 200
    assert "Bill Gates" in json.loads(body)[0]
    assert "the tiny model learns" in stack.compose("logs", "first-run").stdout
    assert list((stack.folder / "runs").iterdir()) == []
    # it is there the next time
    assert stack.compose("down").returncode == 0
    stack.up("scoring")
    log = stack.compose("logs", "first-run").stdout
    assert "first-run/latest has a model" in log
    assert "learns" not in log


@pytest.mark.docker
def test_stopping_lets_an_answer_come_to_its_end(engine, stack, random_model, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.copytree(random_model, folder)
    open_up(folder)
    stack.up("scoring", PHIKIT_SERVE_MODEL=str(folder))
    answers: list[tuple[int, bytes]] = []
    question = {"model": "phikit", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": LONG}
    body = json.dumps(question).encode()
    asking = threading.Thread(target=lambda: answers.append(call(stack.port, "/v1/chat/completions", body)))
    asking.start()
    until(lambda: b"\nphikit_slots_busy 1.0\n" in call(stack.port, "/metrics")[1], "the answer is begun")
    begin = time.monotonic()
    assert stack.compose("stop", "scoring").returncode == 0
    took = time.monotonic() - begin
    asking.join(timeout=60)
    ((status, answer),) = answers
    assert status == 200
    assert json.loads(answer)["usage"]["completion_tokens"] == LONG
    state = stack.container(engine, "scoring").attrs["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert took < seconds_of(compose_service()["stop_grace_period"])


@pytest.mark.docker
def test_a_model_that_is_not_there_is_no_folder_made_by_docker(stack):
    done = stack.compose("up", "--wait", "scoring", PHIKIT_SERVE_MODEL=str(stack.folder / "nowhere"))
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert not (stack.folder / "nowhere").exists()


def compose_service() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["scoring"]


def seconds_of(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_compose_hands_every_setting_on_and_waits_longer_than_the_drain():
    service = compose_service()
    assert set(service["environment"]) == {name for name in variables() if name.startswith("PHIKIT_SERVE_")}
    assert seconds_of(service["stop_grace_period"]) > ServerSettings().drain
    assert service["environment"]["PHIKIT_SERVE_PORT"] == "5001"
