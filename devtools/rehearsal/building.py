"""The image of an environment: the one that it names, or one that is built from the context that it brings.

image = have(rehearsal, environment["properties"])

Azure builds in tasks of its registry; here the Docker engine does, once for each context. Without an engine there are
no images at all, and what a context says is not looked at.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.rehearsal.assets import addresses
from devtools.rehearsal.wire import WireError
from devtools.settings import inherited

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

REPOSITORY = "phikit-rehearsal-built"
#: Lines of a build's log that are shown when it fails.
SHOWN = 20
_ONE_AT_A_TIME = threading.Lock()


def image_of(environment: dict[str, Any]) -> str:
    """The name of the image, built or not; raises WireError where there is neither an image nor a context."""
    if environment.get("image"):
        return environment["image"]
    build = environment.get("build") or {}
    if not build.get("contextUri"):
        raise WireError(501, "NotEmulated", "the environment names no image and no build context; name one of them")
    return f"{REPOSITORY}:{hashlib.sha256(build['contextUri'].encode()).hexdigest()[:16]}"


def have(rehearsal: Rehearsal, environment: dict[str, Any]) -> str:
    """Build the image of an environment that brings a context, and pull any other one; its name.

    Raises:
        WireError: the build fails, or the image cannot be pulled.
    """
    name, build = image_of(environment), environment.get("build") or {}
    if not environment.get("image") and rehearsal.runner.kind == "docker":
        with _ONE_AT_A_TIME:
            _ensure(rehearsal, name, build["contextUri"], build.get("dockerfilePath") or "Dockerfile")
    rehearsal.runner.pull(name)
    return name


def _ensure(rehearsal: Rehearsal, name: str, context: str, dockerfile: str) -> None:
    found = subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False)
    if found.returncode == 0:
        return
    place = addresses.blob(rehearsal, context)
    if place is None:
        raise WireError(501, "NotEmulated", f"{context}: is not in the rehearsal's storage, and it goes nowhere else")
    with tempfile.TemporaryDirectory(prefix="phikit-build-") as scratch:
        rehearsal.blobs.download_all(place[0], f"{place[1].strip('/')}/", Path(scratch))
        command = ["docker", "build", "--quiet", "--tag", name, "--file", f"{scratch}/{dockerfile}", scratch]
        done = subprocess.run(command, env=inherited(), capture_output=True, text=True, check=False)
    if done.returncode:
        log = "\n".join(done.stderr.splitlines()[-SHOWN:])
        raise WireError(400, "ImageBuildFailure", f"Image build failed. {log}")
