"""The managed endpoint from its first deployment to its end: each test goes on from the one before.

Two models that answer alike and differ in a file take turns behind one endpoint, which the kit's own server runs.
"""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from devtools.rehearsal.load import BEGUN
from tests.azure_backend.test_training import errors
from tests.serving.models import ANSWER, QUESTION

NAME = "phikit-00000005"
DEPLOY = ("azure", "deploy", "--yes")
CLIENT = """
import os, sys
sys.path.insert(0, os.getcwd())
from flows.endpoint import Endpoint
print(Endpoint(os.environ["PHIKIT_ENDPOINT_URI"], os.environ["PHIKIT_ENDPOINT_KEY"]).answer(
    [{"role": "user", "content": sys.argv[1]}]))
"""


@pytest.fixture(scope="module")
def runs(rehearsed, tiny_model) -> Path:
    """Two whole runs, `one` and `two`, and `broken`, whose model does not load."""
    folder = rehearsed.root / "runs"
    for name in ("one", "two", "broken"):
        run = folder / name
        shutil.copytree(tiny_model, run / "model")
        (run / "job.json").write_text(json.dumps({"inputs": {"recipe": "tiny_cpu"}, "created": name}))
        (run / "run.json").write_text(json.dumps({"state": "finished"}))
        (run / "model" / "which.txt").write_text(name)
    (weights,) = (folder / "broken" / "model").rglob("model.safetensors")
    weights.write_bytes(b"no weights")
    return folder


def deployments(rehearsed) -> dict[str, dict]:
    return {key.partition("/")[2]: body for key, body in rehearsed.store.all("deployments", f"{NAME}/")}


def traffic(rehearsed) -> dict[str, int]:
    document = rehearsed.store.get("endpoints", NAME)
    return {name: share for name, share in document["properties"]["traffic"].items() if share}


def model_of(rehearsed) -> str:
    """The model that has all of the traffic."""
    ((name, share),) = traffic(rehearsed).items()
    assert share == 100
    return deployments(rehearsed)[name]["tags"]["model"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--run", "nobody"], "there is no such run"),
        (["--run", "one", "--model", "phikit:1"], "name one of them"),
        (["--model", "phikit"], "must be name:version"),
        (["--endpoint", "1"], "3 to 32 letters"),
        (["--endpoint", "x" * 300], "3 to 32 letters"),
    ],
)
def test_bad_input_is_a_line_before_anything_is_sent(rehearsed, runs, arguments, said):
    before = len(rehearsed.calls())
    done = rehearsed.phikit(*DEPLOY, *(arguments if "--run" in arguments else [*arguments, *model_or_run(arguments)]))
    assert done.returncode == 2
    (line,) = errors(done)
    assert said in line
    assert len(line) < 250
    assert len(rehearsed.calls()) == before


def model_or_run(arguments: list[str]) -> list[str]:
    return [] if "--model" in arguments else ["--run", "one"]


@pytest.mark.parametrize(
    ("refusal", "options", "said"),
    [
        ("quota", {}, "ask for more in the portal"),
        ("sku", {}, "name another size"),
        ("name-taken", {}, "choose another name"),
        ("role", {"on": "onlineEndpoints/write"}, "az role assignment create"),
    ],
)
def test_what_the_service_refuses_leaves_nothing(rehearsed, runs, refusal, options, said):
    rehearsed.refuse(refusal, **options)
    done = rehearsed.phikit(*DEPLOY, "--run", "one")
    assert done.returncode in (1, 2)
    (line,) = errors(done)
    assert said in line
    assert not rehearsed.store.all("endpoints")
    assert not rehearsed.store.all("deployments")


def test_an_endpoint_that_is_not_there(rehearsed):
    for command in (["invoke"], ["endpoint"], ["keys"], ["rollback", "--yes"], ["connect", "--", "true"]):
        done = rehearsed.phikit("azure", *command)
        assert done.returncode == 2, command
        assert "phikit azure deploy makes it" in errors(done)[0]


def test_a_question_needs_somebody_to_answer(rehearsed, runs):
    done = rehearsed.phikit("azure", "deploy", "--run", "one")
    assert done.returncode == 2
    assert "USD an hour" in done.stderr
    assert not rehearsed.store.all("endpoints")


def test_the_first_deployment(rehearsed, runs):
    done = rehearsed.phikit(*DEPLOY, "--run", "one")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"https://{NAME}.eastus2.inference.ml.azure.com/score\n"
    assert traffic(rehearsed) == {"blue": 100}
    asked = rehearsed.phikit("azure", "invoke", QUESTION)
    assert asked.stdout == f"{ANSWER}\n"
    shown = rehearsed.phikit("azure", "endpoint")
    (row,) = shown.stdout.splitlines()
    name, model, _, share, state, *_ = row.split("\t")
    assert (name, model, share, state) == ("blue", model_of(rehearsed), "100 %", "Succeeded")


def test_the_same_again_changes_nothing(rehearsed, runs):
    done = rehearsed.phikit(*DEPLOY, "--run", "one")
    assert done.returncode == 0
    assert "already, with all of the traffic" in done.stderr
    assert list(deployments(rehearsed)) == ["blue"]


def test_keys_and_whoever_uses_them(rehearsed, runs):
    masked = rehearsed.phikit("azure", "keys").stdout
    whole = dict(line.split("\t") for line in rehearsed.phikit("azure", "keys", "--show").stdout.splitlines())
    assert "****" in masked
    assert whole["primary"] not in masked
    command = ("azure", "connect", "--", sys.executable, "-c", CLIENT, QUESTION)
    assert rehearsed.phikit(*command).stdout == f"{ANSWER}\n"
    assert rehearsed.phikit("azure", "connect", "--", "bash", "-c", "exit 7").returncode == 7
    rotated = rehearsed.phikit("azure", "keys", "--rotate", "primary", "--show")
    after = dict(line.split("\t") for line in rotated.stdout.splitlines())
    assert after["primary"] != whole["primary"]
    assert after["secondary"] == whole["secondary"]
    assert rehearsed.phikit("azure", "invoke", QUESTION).stdout == f"{ANSWER}\n"
    # no key was ever kept by the command line
    for key in (whole["primary"], after["primary"]):
        found = subprocess.run(["grep", "-rlF", key, str(rehearsed.root)], capture_output=True, text=True, check=False)
        assert found.stdout == ""


def test_an_update_under_load_fails_no_request(rehearsed, runs):
    before = model_of(rehearsed)
    load = rehearsed.start("azure", "connect", "--", sys.executable, "-m", "devtools.rehearsal.load")
    assert load.stdout.readline().strip() == BEGUN
    done = rehearsed.phikit(*DEPLOY, "--run", "two")
    load.send_signal(signal.SIGTERM)
    counted = json.loads(load.communicate(timeout=120)[0].splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert counted["failed"] == 0, counted
    assert counted["answered"] > 5
    assert model_of(rehearsed) != before
    assert list(deployments(rehearsed)) == ["green"]
    steps = [line for line in done.stderr.splitlines() if line.startswith("traffic: ")]
    assert steps == [f"traffic: {percent} % to green" for percent in (10, 50, 100)]


@pytest.mark.parametrize("how", ["probe", "image-pull", "a model that does not load"])
def test_a_broken_one_is_taken_back(rehearsed, runs, how):
    before = model_of(rehearsed)
    if how in ("probe", "image-pull"):
        rehearsed.refuse(how)
    done = rehearsed.phikit(*DEPLOY, "--run", "broken" if " " in how else "one")
    assert done.returncode == 1
    # (the container's log, which is shown before, has errors of its own)
    assert "green" in errors(done)[-1]
    if " " in how:
        assert "model.safetensors" in done.stderr
    assert model_of(rehearsed) == before
    assert list(deployments(rehearsed)) == ["green"]
    assert rehearsed.phikit("azure", "invoke", QUESTION).stdout == f"{ANSWER}\n"


def test_killed_in_the_middle_and_given_again(rehearsed, runs):
    before = model_of(rehearsed)
    process = rehearsed.start(*DEPLOY, "--run", "one")
    until(lambda: "blue" in deployments(rehearsed))
    process.kill()
    process.communicate()
    assert model_of(rehearsed) == before
    done = rehearsed.phikit(*DEPLOY, "--run", "one", "--keep")
    assert done.returncode == 0, done.stderr
    assert model_of(rehearsed) != before
    # as it was asked for, the old one is kept
    assert set(deployments(rehearsed)) == {"blue", "green"}


def test_back_to_the_one_that_was_kept(rehearsed, runs):
    before = model_of(rehearsed)
    done = rehearsed.phikit("azure", "rollback", "--yes")
    assert done.returncode == 0, done.stderr
    assert model_of(rehearsed) != before
    assert traffic(rehearsed) == {"green": 100}


def test_two_at_once(rehearsed, runs):
    rehearsed.refuse("slow", times=1, seconds=8)
    first = rehearsed.start(*DEPLOY, "--run", "one")
    # the one that was live before the rollback is removed, and made anew
    until(
        lambda: (
            deployments(rehearsed).get("blue", {"properties": {}})["properties"].get("provisioningState") == "Creating"
        )
    )
    second = rehearsed.phikit(*DEPLOY, "--run", "broken")
    assert second.returncode == 1
    assert "another deployment of it goes on" in errors(second)[0]
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said


def test_back_to_a_model_that_is_deployed_no_more(rehearsed, runs):
    before = model_of(rehearsed)
    assert list(deployments(rehearsed)) == ["blue"]
    done = rehearsed.phikit("azure", "rollback", "--yes")
    assert done.returncode == 0, done.stderr
    assert model_of(rehearsed) != before


def test_everything_is_taken_down(rehearsed, runs):
    asked = rehearsed.phikit("azure", "down")
    assert asked.returncode == 2
    assert f"endpoint {NAME}" in asked.stderr
    assert "USD a day" in asked.stderr
    rehearsed.store.put(
        "endpoints", "somebodys", rehearsed.store.get("endpoints", NAME) | {"name": "somebodys", "tags": {}}
    )
    try:
        done = rehearsed.phikit("azure", "down", "--yes")
        assert done.returncode == 0, done.stderr
        # what the kit did not make is not touched
        assert [key for key, _ in rehearsed.store.all("endpoints")] == ["somebodys"]
    finally:
        rehearsed.store.delete("endpoints", "somebodys")
    assert not deployments(rehearsed)
    assert "stays: models: phikit:" in done.stdout
    again = rehearsed.phikit("azure", "down", "--yes")
    assert again.returncode == 0
    assert "nothing of the kit's that costs by the hour" in again.stderr


def until(true: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)
