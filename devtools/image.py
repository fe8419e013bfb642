"""The runtime image: whether it is there and fits the locks, and its build through compose.yaml.

phikit image build                # phikit-runtime:cpu
phikit image build --gpu          # phikit-runtime:gpu
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.errors import BadInput, KitError
from devtools.settings import ROOT, Settings, inherited

if TYPE_CHECKING:
    from docker import DockerClient

#: The images that compose.yaml builds, each with its service.
IMAGES = {"phikit-runtime:cpu": "runtime", "phikit-runtime:gpu": "runtime-gpu"}
#: Labels of an image: the SHA-256 of the lock that it was built from, and the base that it was built on.
LOCK_LABEL = "phikit.runtime.lock.sha256"
BASE_LABEL = "org.opencontainers.image.base.name"


def state(client: DockerClient, name: str, root: Path = ROOT) -> str:
    """`ready`, `missing`, or `stale`: built from another lock than docker/runtime.lock."""
    from docker.errors import ImageNotFound

    try:
        labels = client.images.get(name).labels
    except ImageNotFound:
        return "missing"
    lock = root / "docker" / "runtime.lock"
    if name not in IMAGES or LOCK_LABEL not in labels or not lock.is_file():
        return "ready"
    return "ready" if labels[LOCK_LABEL] == hashlib.sha256(lock.read_bytes()).hexdigest() else "stale"


def ensure(client: DockerClient, name: str, settings: Settings) -> None:
    """Have the image: instant if it is there and fits, else a build of some minutes.

    Raises BadInput for an image that is missing and not the kit's own, KitError when the build fails.
    """
    found = state(client, name)
    if found == "ready":
        return
    if name not in IMAGES:
        raise BadInput(f"environment.image: this engine has no image {name}; fetch it: docker pull {name}")
    why = "is not built yet" if found == "missing" else "was built from another lock"
    print(f"image {name} {why}: building it (some minutes, once)", file=sys.stderr, flush=True)
    before = client.images.get(name).labels.get(BASE_LABEL, "") if found == "stale" else ""
    if not settings.base_image and "/" not in before:
        # a base that was made on this machine, and that the default is likely not to be had in place of
        settings = dataclasses.replace(settings, base_image=before or None)
    build(name, settings)


def build(name: str, settings: Settings) -> None:
    """Build one of the kit's images through compose, its log on this process's output; raises KitError if it fails."""
    if compose_version() is None:
        raise KitError("docker compose is missing, and the image is built through it: install Docker's compose plugin")
    command = ["docker", "compose", "build", IMAGES[name]]
    done = subprocess.run(command, cwd=ROOT, env=inherited() | settings.environ(), check=False)
    if done.returncode:
        base = f"the base image {settings.base_image}" if settings.base_image else "the base image"
        raise KitError(
            f"image {name} could not be built (its log is above); if {base} cannot be pulled here: "
            "`make stand-in-base`, then BASE_IMAGE=phikit-base:stand-in in .env; without Docker: BACKEND=venv"
        )


def compose_version() -> str | None:
    """The version of Docker's compose plugin; None when there is none."""
    return _plugin("compose", "version", "--short")


def buildx_version() -> str | None:
    """The version of Docker's buildx plugin; None when there is none."""
    return _plugin("buildx", "version")


def _plugin(*arguments: str) -> str | None:
    if not shutil.which("docker"):
        return None
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None
