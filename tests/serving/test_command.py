"""`phikit serve` and `phikit export` with the real server and the real exporter, in both backends."""

import json
import shutil
import signal
import subprocess
import urllib.request

import pytest

from devtools.local_server import free_port
from devtools.settings import ROOT
from tests.devtools.conftest import backend, checkout, runtime_image  # noqa: F401 - fixtures
from tests.serving.models import ANSWER, HELD_OUT, QUESTION


@pytest.fixture
def trained(checkout, tiny_model):  # noqa: F811
    """A checkout with the serving code and one run, whose data is where it was."""
    shutil.copytree(ROOT / "serving", checkout.root / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tiny_model, checkout.root / "runs" / "first" / "model")
    (checkout.root / "runs" / "latest").symlink_to("first")
    shutil.copy(HELD_OUT, checkout.root / "data" / "test_data.jsonl")
    checkout.write("runs/first/job.json", "{}")
    return checkout


def until_it_answers(process: subprocess.Popen) -> str:
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("runs/first/model answers: "):
            return line.split()[2]
    pytest.fail("".join(said))


def answers(url: str, path: str, body: dict | None = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_a_run_is_exported_served_and_ended_by_ctrl_c(trained, backend):  # noqa: F811
    done = trained.phikit("export", "--backend", backend, "--precision", "int8", "--questions", "20")
    assert done.returncode == 0, done.stderr
    folder = trained.root / "runs" / "first" / "model" / "artifacts" / "onnx-int8"
    quality = json.loads((folder / "quality.json").read_text())
    assert (quality["passed"], quality["held_out"]) == (True, "test_data.jsonl")

    process = trained.start("serve", "--backend", backend, "--port", str(free_port()))
    url = until_it_answers(process)
    assert answers(url, "/version")["engine"] == {"name": "onnx", "precision": "int8"}
    assert answers(url, "/score", {"input_data": [QUESTION]}) == [ANSWER]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def test_what_the_engine_lacks_is_a_line_and_exit_code_2(trained):
    done = trained.phikit("serve", "--backend", "venv", "--port", str(free_port()), "--engine", "onnx")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "phikit export --format onnx --precision int4" in line
