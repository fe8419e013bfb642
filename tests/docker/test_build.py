"""How the image is built: from the cache when code changes, with nothing of the build's secrets left in it.

pytest tests/docker/test_build.py
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.models.images import Image

import docker

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.docker

CERTIFICATES = """
import json, pathlib, certifi
paths = [pathlib.Path("/etc/ssl/certs/ca-certificates.crt"), pathlib.Path(certifi.where())]
print(json.dumps([path.read_text() for path in paths if path.exists()]))
"""


def certificates(bundle: str) -> set[str]:
    """The certificates of a PEM bundle, each as the text between its armour lines."""
    parts = bundle.split("-----BEGIN CERTIFICATE-----")[1:]
    return {part.split("-----END CERTIFICATE-----")[0].strip() for part in parts}


@pytest.fixture
def settings(compose: Callable[..., str]) -> dict[str, Any]:
    """compose.yaml as this machine's settings resolve it."""
    return json.loads(compose("--profile", "image", "config", "--format", "json"))


def test_code_change_rebuilds_nothing(
    engine: docker.DockerClient,
    image: Image,
    settings: dict[str, Any],
    compose: Callable[..., str],
    tmp_path: Path,
) -> None:
    base = settings["services"]["runtime"]["build"]["args"]["BASE_IMAGE"]
    if base != image.labels["org.opencontainers.image.base.name"]:
        reason = (
            f"the image was built on {image.labels['org.opencontainers.image.base.name']}, BASE_IMAGE is {base} now"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # a checkout of its own, so that no tracked file is touched
    for name in ("docker", "training", "compose.yaml", "pyproject.toml"):
        source = REPO / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    if (REPO / ".env").exists():
        shutil.copy(REPO / ".env", tmp_path / ".env")
    (tmp_path / "training" / "touched.py").write_text("CHANGED = True\n")
    started = time.monotonic()
    compose("build", "runtime", folder=tmp_path)
    took = time.monotonic() - started
    assert engine.images.get(image.tags[0]).id == image.id
    assert took < 60


def test_compose_up_leaves_the_images_alone(compose: Callable[..., str]) -> None:
    assert {"runtime", "runtime-gpu"}.isdisjoint(compose("config", "--services").split())
    assert {"runtime", "runtime-gpu"} <= set(compose("--profile", "image", "config", "--services").split())


def test_nothing_of_the_build_is_left(image: Image, settings: dict[str, Any], run: Callable[..., str]) -> None:
    mounts = "/run/secrets /run/phikit /run/wheels /run/torch.lock /run/runtime.lock /run/install.sh /run/make_venv.sh"
    assert (
        run(["bash", "-c", f"ls -d {mounts} 2>/dev/null; ls -A /var/cache/pip 2>/dev/null || true"], user="0:0") == ""
    )
    history = json.dumps(image.history())
    assert "BEGIN CERTIFICATE" not in history
    assert settings["secrets"]["ca"]["file"] not in history
    assert settings["services"]["runtime"]["build"]["additional_contexts"]["wheels"] not in history


def test_private_authority_of_the_build_is_not_in_the_image(
    engine: docker.DockerClient, image: Image, settings: dict[str, Any], run: Callable[..., str]
) -> None:
    given = certificates(Path(settings["secrets"]["ca"]["file"]).read_text())
    if not given:
        pytest.skip("the build was given no private certificate authority (PHIKIT_CA_FILE)")
    in_image = [certificates(bundle) for bundle in json.loads(run(["python", "-c", CERTIFICATES]))]
    base = image.labels["org.opencontainers.image.base.name"]
    command = ["cat", "/etc/ssl/certs/ca-certificates.crt"]
    of_base = certificates(engine.containers.run(base, command, remove=True, network_disabled=True).decode())
    assert in_image[0] == of_base
    private = given.difference(*in_image)
    if not private:
        pytest.skip("the build was given public certificate authorities alone (PHIKIT_CA_FILE)")
    lines = " ".join(f"-e '{certificate.splitlines()[1]}'" for certificate in private)
    # (all of them in one pass, byte by byte, and not in gigabytes of machine code)
    search = f"LC_ALL=C grep -rlF --exclude='*.so' --exclude='*.so.*' --exclude='*.a' {lines}"
    places = "/etc /opt /home /root /usr/local /tmp /var"
    found = run(["bash", "-c", f"{search} {places} || true"], user="0:0")
    assert found == ""


def test_stand_in_base_is_made_once(engine: docker.DockerClient, image: Image) -> None:
    if image.labels["org.opencontainers.image.base.name"] != "phikit-base:stand-in":
        pytest.skip("the image stands on another base")
    before = engine.images.get("phikit-base:stand-in").id
    script = str(REPO / "docker" / "stand_in_base.sh")
    again = subprocess.run([script], capture_output=True, text=True, timeout=60)
    assert (again.returncode, again.stdout) == (0, "stand-in base: phikit-base:stand-in is there already\n")
    assert engine.images.get("phikit-base:stand-in").id == before
    wrong = subprocess.run([script, "--wrong"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode != 0 and "--wrong" in wrong.stderr and wrong.stdout == ""


def test_base_without_a_python_is_refused_in_words(engine: docker.DockerClient, image: Image) -> None:
    if image.labels["org.opencontainers.image.base.name"] != "phikit-base:stand-in":
        pytest.skip("the image stands on another base, which may have conda")
    build = ["docker", "build", "--progress", "plain", "--file", "docker/runtime.Dockerfile", "--no-cache"]
    arguments = ["--build-arg", "BASE_IMAGE=phikit-base:stand-in", "--build-arg", "PYTHONS=3.99", "."]
    done = subprocess.run([*build, *arguments], cwd=REPO, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "has no Python among 3.99" in done.stderr and "docker/bases.yaml" in done.stderr
