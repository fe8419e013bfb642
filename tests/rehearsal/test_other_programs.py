"""Programs that know nothing of the kit, run as they are: phikit rehearsal run -- COMMAND."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).with_name("programs")
ROOT = Path(__file__).parents[2]
IMAGE = "phikit-test-words:1"
PORT = "8097"
DOCKERFILE = """
FROM phikit-runtime:cpu
CMD ["bash", "-c", "exec python $AML_APP_ROOT/serve.py"]
"""


def run(rehearsal, *command: str) -> list[dict]:
    """The lines of JSON that a program prints when it is run in the rehearsal."""
    done = subprocess.run(
        [sys.executable, "-m", "devtools.cli", "rehearsal", "run", "--", sys.executable, *command],
        cwd=ROOT,
        env=rehearsal.outside,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    # (the SDK prints dots while it waits, and ends that line nowhere)
    lines = (line.lstrip(".") for line in done.stdout.splitlines())
    return [json.loads(line) for line in lines if line.startswith("{")]


def merged(said: list[dict]) -> dict:
    return {key: value for line in said for key, value in line.items()}


def test_rest_by_hand(rehearsal):
    said = merged(run(rehearsal, str(PROGRAMS / "ask_by_rest.py")))
    assert said["workspace"] == "rehearsal"
    assert said["cluster"] == "Succeeded"
    assert said["missing"] == 404
    assert said["stranger"] == 401
    assert said["code"] == "InvalidAuthenticationToken"


@pytest.mark.docker
def test_a_script_on_the_sdk(rehearsal, runtime_image, engine, tmp_path):
    context = tmp_path / "image"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    engine.images.build(path=str(context), tag=IMAGE)
    said = merged(run(rehearsal, str(PROGRAMS / "submit_and_deploy.py"), str(tmp_path / "work"), IMAGE, PORT))
    assert said["compute"] == "Succeeded"
    assert said["job"] == "Completed"
    assert said["listed"]
    # "be" and "to" come twice each; the alphabet decides
    assert said["words"] == ["be", "to"]
    assert said["model"] == "word-model"
    assert said["answer"] == {"known": [True, False]}
    assert said["uri"] == "https://word-endpoint.eastus2.inference.ml.azure.com/score"
    assert said["two_keys"]
    assert said["log"]
    assert said["left"] == []
