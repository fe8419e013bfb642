"""The dev containers, really opened by VS Code's own command line: the runtime image, in which the kit's verbs work.

python -m pytest tests/e2e/test_devcontainer.py -m docker        # npm install --global @devcontainers/cli
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools import image
from devtools.settings import ROOT, Settings

IMAGE = "phikit-runtime:cpu"
NO_CLIENT = "no devcontainer command: npm install --global @devcontainers/cli"
DEADLINE = 900


@pytest.fixture(scope="module")
def devcontainer() -> str:
    """The command. Without it the test is skipped; in CI it fails."""
    found = shutil.which("devcontainer")
    if not found and os.environ.get("CI"):
        pytest.fail(f"{NO_CLIENT}; CI must have it", pytrace=False)
    return found or pytest.skip(NO_CLIENT)


class Workspace:
    """A checkout, opened or not."""

    def __init__(self, command: str, folder: Path) -> None:
        self.command, self.folder = command, folder

    def call(self, verb: str, *arguments: str) -> str:
        """What the command prints on standard output; a failure fails the test."""
        done = subprocess.run(
            [self.command, verb, "--workspace-folder", str(self.folder), *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout


@pytest.fixture(scope="module")
def workspace(devcontainer, engine, tmp_path_factory) -> Iterator[Workspace]:
    """A clean checkout in its dev container."""
    image.ensure(engine, IMAGE, Settings.load())
    folder = tmp_path_factory.mktemp("opened") / "phikit"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, files.decode().split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    workspace = Workspace(devcontainer, folder)
    try:
        workspace.call("up")
        yield workspace
        # what it made belongs to its user, root
        workspace.call("exec", "chown", "-R", f"{os.getuid()}:{os.getgid()}", ".")
    finally:
        for container in containers(engine, folder):
            container.remove(force=True)


def containers(engine, folder: Path) -> list:
    return engine.containers.list(all=True, filters={"label": f"devcontainer.local_folder={folder}"})


@pytest.mark.docker
def test_it_is_the_runtime_image_itself(workspace, engine):
    (container,) = containers(engine, workspace.folder)
    assert container.image.id == engine.images.get(IMAGE).id
    assert "/opt/phikit" in workspace.call("exec", "make", "doctor")
    # nothing was installed a second time
    assert not (workspace.folder / ".venv").exists()


@pytest.mark.docker
def test_local_train_works_in_it(workspace):
    said = workspace.call("exec", "make", "local-train", "NAME=inside", "SET=num_train_epochs=1")
    assert f"model  {workspace.folder}/runs/inside/model" in said
    assert (workspace.folder / "runs" / "inside" / "model" / "MLmodel").is_file()


@pytest.mark.docker
def test_tests_work_in_it(workspace):
    # a few of those that `make test` runs, of each kind: plain ones, the training's, those that are for outside
    chosen = ["tests/devtools/test_settings.py", "tests/training/test_recipe.py", "tests/docker/test_image.py"]
    chosen += ["tests/devtools/test_makefile.py", "tests/devtools/test_onnx_export.py"]
    said = workspace.call("exec", "python", "-m", "pytest", "-q", *chosen)
    assert " passed" in said
    assert " skipped" in said
    assert "NOT TESTED" in said
    assert "failed" not in said


def test_the_one_for_gpus_differs_in_its_image_alone(devcontainer):
    def read(*arguments: str) -> dict:
        command = [devcontainer, "read-configuration", "--workspace-folder", str(ROOT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        found = json.loads(done.stdout)["configuration"]
        return {name: value for name, value in found.items() if name != "configFilePath"}

    cpu, gpu = read(), read("--config", str(ROOT / ".devcontainer" / "gpu" / "devcontainer.json"))
    differing = {name for name in cpu.keys() | gpu.keys() if cpu.get(name) != gpu.get(name)}
    assert differing == {"name", "initializeCommand", "image", "runArgs", "hostRequirements"}
    assert gpu["image"] == "phikit-runtime:gpu"
    assert gpu["runArgs"][:2] == ["--gpus", "all"]
