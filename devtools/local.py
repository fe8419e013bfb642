"""Chooses where this machine runs tasks: in containers if a Docker engine answers, else in the virtual environment.

phikit backend                    # which one, and why
phikit backend --backend venv
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devtools.backend import Backend
from devtools.errors import KitError
from devtools.settings import Settings, inherited

if TYPE_CHECKING:
    from docker import DockerClient

CHOICES = ("auto", "docker", "venv")
#: Seconds that an engine has for its first answer (one on this machine needs milliseconds), and for any later one.
FIRST_ANSWER = 10
LATER_ANSWER = 120


def engine(settings: Settings) -> DockerClient:
    """A client of the engine that DOCKER_HOST or the current Docker context names, which answered just now.

    Raises KitError with the reason when none does.
    """
    from docker.errors import DockerException

    import docker

    environment = inherited() | settings.pick("DOCKER_HOST")
    try:
        client = docker.from_env(environment=environment, timeout=FIRST_ANSWER)
        client.ping()
        client.api.timeout = LATER_ANSWER
    except (DockerException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        if "Permission denied" in reason or "PermissionError" in reason:
            raise KitError(
                "the Docker engine's socket is closed to you: join the group docker and log in again"
            ) from error
        raise KitError(f"no Docker engine answers: start one, or set DOCKER_HOST ({reason[:160]})") from error
    return client


def choose(settings: Settings, choice: str = "auto") -> Backend:
    """The backend for `--backend CHOICE`; raises KitError when `docker` is asked for and no engine answers."""
    if choice not in CHOICES:
        raise ValueError(f"backend {choice!r}")
    if choice != "venv":
        try:
            client = engine(settings)
        except KitError as error:
            if choice == "docker":
                raise
            from devtools.venv_backend import VenvBackend

            return VenvBackend(f"{str(error).partition(':')[0]}: using the virtual environment")
        from devtools.docker_backend import DockerBackend

        version = client.version()["Version"]
        return DockerBackend(client, settings, f"Docker engine {version} answers: using a container")
    from devtools.venv_backend import VenvBackend

    return VenvBackend("as asked: using the virtual environment")
