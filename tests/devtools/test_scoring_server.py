"""`phikit serve`: which model, which address, what the server is told, how it ends; tests/serving has the server."""

import json
import shutil
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from devtools.errors import BadInput
from devtools.local_server import free_port, is_free, url_of
from devtools.scoring_server import Request, serve
from devtools.settings import ROOT, Settings
from devtools.venv_backend import VenvBackend

ANYWHERE = "0.0.0.0"
KEY = "long-enough"


@pytest.fixture
def served(checkout):
    """The checkout with a small server, and with two runs of which the second is the latest."""
    shutil.copytree(ROOT / "serving", checkout.root / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).with_name("small_server.py"), checkout.root / "serving" / "__main__.py")
    add_run(checkout.root, "first")
    add_run(checkout.root, "second", latest=True)
    checkout.give_away()
    return checkout


def add_run(root: Path, name: str, *, latest: bool = False) -> Path:
    folder = root / "runs" / name
    (folder / "model").mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    if latest:
        (root / "runs" / "latest").symlink_to(name)
    return folder / "model"


def until_it_answers(process: subprocess.Popen, model: str) -> str:
    """The address that the command line says, once it does."""
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(f"{model} answers: "):
            return line.split()[2]
    pytest.fail("".join(said))


def facts(url: str) -> dict:
    with urllib.request.urlopen(f"{url}/facts", timeout=60) as answer:
        return json.load(answer)


def end(process: subprocess.Popen, number: int = signal.SIGINT) -> str:
    """End it as people do; what it still said."""
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return err


def told(seen: dict) -> dict[str, str]:
    mine = {"PHIKIT_CODE", "PHIKIT_IMAGE"}
    return {name.removeprefix("PHIKIT_SERVE_"): v for name, v in seen["environment"].items() if name not in mine}


def test_options_win_over_settings_and_settings_reach_the_server(served, backend):
    port = free_port()
    served.write(".env", f"PHIKIT_SERVE_KEY={KEY}\nPHIKIT_SERVE_QUEUE=7\nPHIKIT_SERVE_ENGINE=transformers\n")
    arguments = ("serve", "--backend", backend, "--port", str(port), "--engine", "onnx", "--slots", "4")
    process = served.start(*arguments, PHIKIT_SERVE_QUEUE="9", PHIKIT_SERVE_DRAIN="5")
    url = until_it_answers(process, "runs/second/model")
    assert url == f"http://127.0.0.1:{port}"
    seen = facts(url)
    inside = {"HOST": ANYWHERE, "ANONYMOUS": "1"} if backend == "docker" else {"HOST": "127.0.0.1"}
    assert told(seen) == inside | {
        "MODEL": str(served.root / "runs" / "second" / "model"),
        "PORT": str(port),
        "ENGINE": "onnx",
        "SLOTS": "4",
        "QUEUE": "9",
        "KEY": KEY,
        "DRAIN": "5",
    }
    assert seen["package"] == "serving"
    assert seen["files"] == ["MLmodel"]
    assert seen["uid"] == served.root.stat().st_uid
    if backend == "docker":
        assert seen["cwd"] == "/phikit"
        assert seen["writable"] == []
    err = end(process)
    assert "stopping (up to 15 s" in err
    assert KEY not in err
    assert is_free(port)


def test_the_named_run_is_served_until_sigterm(served, backend):
    process = served.start("serve", "--run", "first", "--backend", backend, "--port", str(free_port()))
    url = until_it_answers(process, "runs/first/model")
    assert told(facts(url))["MODEL"] == str(served.root / "runs" / "first" / "model")
    end(process, signal.SIGTERM)


@pytest.mark.docker
def test_a_container_is_published_where_it_was_asked_for(served, engine, runtime_image):
    port = free_port()
    arguments = ("serve", "--backend", "docker", "--port", str(port))
    process = served.start(*arguments, "--host", ANYWHERE, PHIKIT_SERVE_KEY=KEY)
    until_it_answers(process, "runs/second/model")
    (container,) = engine.containers.list(filters={"name": f"phikit-serve-{port}-"})
    assert container.attrs["HostConfig"]["PortBindings"] == {
        f"{port}/tcp": [{"HostIp": ANYWHERE, "HostPort": str(port)}]
    }
    assert KEY not in json.dumps([container.attrs["Config"]["Labels"], container.attrs["Config"]["Cmd"]])
    end(process)


@pytest.mark.parametrize("backend_name", ["venv", pytest.param("docker", marks=pytest.mark.docker)])
def test_others_are_let_in_with_a_key_only_or_on_demand(served, request, backend_name):
    if backend_name == "docker":
        request.getfixturevalue("runtime_image")
    port = free_port()
    arguments = ("serve", "--backend", backend_name, "--host", ANYWHERE, "--port", str(port))
    refused = served.phikit(*arguments)
    assert refused.returncode == 2
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --host 0.0.0.0: others could reach the server without a key; set PHIKIT_SERVE_KEY")
    process = served.start(*arguments, PHIKIT_SERVE_ANONYMOUS="1")
    url = until_it_answers(process, "runs/second/model")
    assert url == f"http://127.0.0.1:{port}"
    end(process)


def test_every_finding_comes_at_once(served):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = served.phikit("serve", "--run", "none", "--host", "everywhere", "--port", port, "--backend", "venv")
    assert done.returncode == 2
    findings = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [finding.partition(": ")[0] for finding in findings] == ["runs/none", "--host everywhere", f"--port {port}"]


def test_a_port_setting_that_is_no_port_is_refused(tmp_path):
    add_run(tmp_path, "first", latest=True)
    with pytest.raises(BadInput, match="PHIKIT_SERVE_PORT web: must be 1 to 65535"):
        serve(Request(), VenvBackend(""), Settings(serve_port="web"), tmp_path)


def test_a_server_that_cannot_start_ends_the_command(served):
    (served.root / "serving" / "__main__.py").write_text("import sys\nsys.exit('error: no')\n")
    done = served.phikit("serve", "--backend", "venv", "--port", str(free_port()))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: no"


def test_addresses_as_people_open_them():
    assert url_of("127.0.0.1", 1) == url_of(ANYWHERE, 1) == "http://127.0.0.1:1"
    assert url_of("::", 1) == "http://[::1]:1"
    assert url_of("192.0.2.1", 1) == "http://192.0.2.1:1"
