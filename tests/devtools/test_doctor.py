"""The doctor: what it looks at, that each gap has a fix, and when it says that nothing can be trained here."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.doctor import FAIL, OK, WARN, can_train, examine
from devtools.settings import ROOT, Settings
from tests.devtools.conftest import SYS_ADMIN, has_capability

NO_ENGINE = "unix:///no/engine.sock"


def by_area(findings: list) -> dict:
    return {finding.area: finding for finding in findings}


def test_every_area_is_looked_at_and_every_gap_has_a_fix(tmp_path):
    findings = examine(Settings(docker_host=NO_ENGINE), tmp_path)
    assert {finding.area for finding in findings} == {
        *("python", "engine", "compose", "buildx", "image", "environment", "local-train"),
        *("gpu", "disk", "memory", "folders", "ports", "settings"),
    }
    assert {port for f in findings if f.area == "ports" for port in f.text.split() if port.isdigit()} == {
        *("5000", "5001", "7860", "8080")
    }
    assert all(finding.fix for finding in findings if finding.level != OK)


def test_without_an_engine_the_environment_is_enough(tmp_path):
    findings = examine(Settings(docker_host=NO_ENGINE), tmp_path)
    assert by_area(findings)["engine"].level == WARN
    assert by_area(findings)["local-train"].text == "runs in the virtual environment"
    assert can_train(findings)


@pytest.fixture
def bare_python(tmp_path) -> Path:
    # an environment of its own, with the command line's packages and none that trains
    environment = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next((environment / "lib").glob("python*")) / "site-packages"
    installed = Path(next(path for path in sys.path if path.endswith("site-packages")))
    for package in (
        "click",
        "yaml",
        "dotenv",
        "docker",
        "requests",
        "urllib3",
        "idna",
        "certifi",
        "charset_normalizer",
    ):
        (packages / package).symlink_to(installed / package)
    return environment / "bin" / "python"


def doctor(python: Path, root: Path) -> subprocess.CompletedProcess:
    """`phikit doctor` with no engine, over the checkout `root`."""
    environment = {"DOCKER_HOST": NO_ENGINE, "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [python, "-m", "devtools.cli", "doctor"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def rows_of(done: subprocess.CompletedProcess) -> dict[str, list[str]]:
    return {line.split("\t")[0]: line.split("\t") for line in done.stdout.splitlines()}


def test_with_neither_yet_it_says_that_the_packages_will_be_installed(bare_python):
    done = doctor(bare_python, ROOT)
    assert done.returncode == 0, done.stderr
    rows = rows_of(done)
    assert rows["environment"][1] == rows["engine"][1] == WARN
    assert rows["local-train"][1] == WARN
    assert "make setup-train" in rows["environment"][3]


@pytest.mark.skipif(not has_capability(SYS_ADMIN), reason="NOT TESTED: only root, outside a container, can mount")
def test_with_neither_and_no_room_for_one_it_fails_and_names_both_ways(bare_python, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", small], check=True)
    try:
        shutil.copytree(ROOT / "devtools", small / "devtools")
        shutil.copytree(ROOT / "docker", small / "docker")
        done = doctor(bare_python, small)
    finally:
        subprocess.run(["umount", small], check=True)
    assert done.returncode == 1, done.stderr
    rows = rows_of(done)
    assert rows["local-train"][1] == FAIL
    assert "3 GiB for the training packages" in rows["local-train"][3]
    assert "start Docker" in rows["local-train"][3]


@pytest.mark.docker
def test_with_an_engine_it_runs_in_a_container(engine, runtime_image, tmp_path):
    findings = by_area(examine(Settings.load(), tmp_path))
    assert findings["engine"].level == OK
    assert findings["local-train"].text == "runs in a container"


def test_a_taken_port_is_said(tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 7860))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        findings = examine(Settings(docker_host=NO_ENGINE), tmp_path)
    (found,) = [finding for finding in findings if finding.text.startswith("7860")]
    assert found.level == WARN
    assert "the chat page" in found.text


def test_wrong_settings_are_said(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    (tmp_path / ".env").write_text("HF_TOKNE=secret-value\n")
    settings = Settings(
        docker_host=NO_ENGINE,
        ca_file=str(tmp_path / "ca.pem"),
        wheels=str(tmp_path / "nowhere"),
        mlflow_tracking_uri="htp://server",
        hf_token="secret-value",
        serve_model=str(tmp_path / "nowhere"),
        serve_key="short,long-enough-though",
    )
    findings = [finding for finding in examine(settings, tmp_path) if finding.area == "settings"]
    text = "\n".join(f"{finding.text} {finding.fix}" for finding in findings)
    for part in ("PHIKIT_CA_FILE", "PHIKIT_WHEELS", "did you mean http?", "did you mean HF_TOKEN?"):
        assert part in text
    assert "PHIKIT_SERVE_MODEL: there is no folder" in text
    assert "PHIKIT_SERVE_KEY: holds a key of fewer than 8 characters" in text
    assert "secret-value" not in text
    assert "long-enough-though" not in text


def test_a_folder_that_is_a_file_fails(tmp_path):
    (tmp_path / "runs").write_text("")
    findings = examine(Settings(docker_host=NO_ENGINE), tmp_path)
    assert by_area(findings)["folders"].level == FAIL
    assert not can_train(findings)
