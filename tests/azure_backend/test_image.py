"""The runtime image in the workspace: pushed to a real registry and used by its digest, or built from its own files."""

import io
import json
import subprocess
import sys
import tarfile

import pytest
import requests

from devtools.azure import image, registry
from devtools.settings import ROOT, Settings

SMALL = "phikit-test-small"


def test_a_context_has_what_the_dockerfile_needs(tmp_path):
    source = image.build_context(Settings(), gpu=False, folder=tmp_path)
    text = (tmp_path / "docker" / "runtime.Dockerfile").read_text()
    assert "ARG BASE_IMAGE=mcr.microsoft.com/azureml/openmpi5.0" in text
    wanted = {line.split("source=")[1].split(",")[0] for line in text.splitlines() if "type=bind,source=" in line}
    wanted = {name.replace("${TORCH_LOCK}", "torch-cpu.lock") for name in wanted}
    assert wanted
    for name in wanted | {"docker/serve.sh"}:
        assert (tmp_path / name).is_file(), name
    # its hash is that of its content, wherever it lies
    again = image.build_context(Settings(), gpu=False, folder=tmp_path / "elsewhere")
    assert again.digest == source.digest
    other = image.build_context(Settings(base_image="another:1"), gpu=False, folder=tmp_path / "other")
    assert other.digest != source.digest
    gpu = image.build_context(Settings(), gpu=True, folder=tmp_path / "gpu")
    assert "torch-cu129.lock" in (tmp_path / "gpu" / "docker" / "runtime.Dockerfile").read_text()
    assert gpu.digest not in (source.digest, other.digest)


def test_the_same_environment_is_used_again(rehearsed):
    first = rehearsed.phikit("azure", "image")
    assert first.returncode == 0, first.stderr
    before = len(rehearsed.calls())
    again = rehearsed.phikit("azure", "image")
    assert again.stdout == first.stdout
    made = [call for call in rehearsed.calls()[before:] if call["method"] == "PUT"]
    assert made == []


@pytest.fixture
def small_image(engine) -> str:
    """An image of one file."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        data = b"what is in it\n"
        member = tarfile.TarInfo("file")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    engine.api.import_image_from_data(content.getvalue(), repository=SMALL, tag="1")
    yield f"{SMALL}:1"
    engine.images.remove(f"{SMALL}:1", force=True)


PUSH = """
import json, sys
from devtools.azure import registry
from devtools.azure.workspace import connect
from devtools.local import engine
from devtools.settings import Settings
settings = Settings.load()
place = registry.of(connect(settings))
before = place.digest("small", "one")
digest = before or place.push(engine(settings), sys.argv[1], "small", "one")
print(json.dumps({"before": before, "digest": digest, "server": place.server, "token": place.refresh_token}))
"""


@pytest.mark.docker
def test_a_push_to_a_real_registry(rehearsed, engine, small_image):
    def push() -> dict:
        done = subprocess.run(
            [sys.executable, "-c", PUSH, small_image],
            cwd=rehearsed.root,
            env=rehearsed.client,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    first = push()
    assert first["before"] is None
    assert first["digest"].startswith("sha256:")
    # no name is left behind on this machine
    assert not [tag for found in engine.images.list() for tag in found.tags if tag.startswith(first["server"])]
    again = push()
    assert again["before"] == again["digest"] == first["digest"]
    # it is the image: pulled back by its digest it has the same content
    login = {"username": registry.TOKEN_USER, "password": first["token"]}
    pulled = engine.images.pull(f"{first['server']}/small@{first['digest']}", auth_config=login)
    assert pulled.id == engine.images.get(small_image).id
    # and nobody gets it without a token
    answer = requests.get(f"https://{first['server']}/v2/small/tags/list", verify=str(rehearsed.home / "ca.pem"))
    assert answer.status_code == 401


def test_no_mode_of_that_name(rehearsed):
    done = rehearsed.phikit("azure", "image", PHIKIT_AZURE_IMAGE="pusch")
    assert done.returncode == 2
    assert "did you mean push?" in done.stderr


def test_the_files_of_the_context_are_in_the_checkout():
    for name in image.CONTEXT:
        assert (ROOT / name).exists(), name
