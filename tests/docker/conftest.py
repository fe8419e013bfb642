"""What the container tests share: an engine, the built image, and commands run in it.

pytest tests/docker -m docker

Without an engine or the image these tests are skipped with the reason; in CI that is a failure, because CI builds both.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from docker.errors import ContainerError, DockerException, ImageNotFound
from docker.models.images import Image

import docker

REPO = Path(__file__).resolve().parents[2]
IMAGE = "phikit-runtime:cpu"
STRANGER = "4321:4321"  # a uid that no passwd file knows


def absent(reason: str) -> None:
    """Skip the test that asks, or fail it where nothing may be missing (CI)."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    """A client of the engine that answers here; in the dev container that is another machine's."""
    if os.environ.get("IN_DEVCONTAINER"):
        absent("no Docker engine of its own has the dev container; run the container tests outside")
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        absent(f"no Docker engine answers ({error}); start one to run the container tests")
    return client


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Image:
    """The CPU image, as `docker compose build runtime` leaves it."""
    try:
        return engine.images.get(IMAGE)
    except ImageNotFound:
        absent(f"{IMAGE} is not built; run: docker compose build runtime")
        raise


@pytest.fixture(scope="session")
def run(engine: docker.DockerClient, image: Image) -> Callable[..., str]:
    """run(command, **options): the standard output of a command in a new container without network, as a stranger."""

    def run_command(command: str | list[str], **options: object) -> str:
        settings: dict[str, object] = {"user": STRANGER, "network_disabled": True, "remove": True} | options
        try:
            output: bytes = engine.containers.run(image.id, command, stdout=True, stderr=False, **settings)
        except ContainerError as error:
            pytest.fail(f"{command}: exit code {error.exit_status}\n{error.stderr.decode()[-2000:]}")
        return output.decode()

    return run_command


@pytest.fixture
def compose(engine: docker.DockerClient) -> Callable[..., str]:
    """compose(*arguments, folder=REPO): what `docker compose` prints on standard output; its errors fail the test."""

    def call(*arguments: str, folder: Path = REPO) -> str:
        done = subprocess.run(
            ["docker", "compose", *arguments], cwd=folder, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return call
