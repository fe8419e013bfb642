"""The image of an environment: the one that it names, or one that is built from the context that it brings.

image = have(rehearsal, environment["properties"])

Azure builds in tasks of its registry; here the Docker engine does, once for each context. Without an engine there are
no images at all, and what a context says is not looked at.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.rehearsal.assets import addresses
from devtools.rehearsal.container_runner import LABEL
from devtools.rehearsal.wire import WireError
from devtools.settings import Settings, inherited

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


def label(home: Path) -> str:
    """What the images carry that were built for a home."""
    return f"{LABEL}={home}"


def _ensure(rehearsal: Rehearsal, name: str, context: str, dockerfile: str) -> None:
    whose = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    # (one that another home built is built again, from the engine's cache: who begins anew removes its own)
    if _docker(rehearsal, "image", "inspect", "--format", whose, name) == (0, f"{rehearsal.home}\n"):
        return
    place = addresses.blob(rehearsal, context)
    if place is None:
        raise WireError(501, "NotEmulated", f"{context}: is not in the rehearsal's storage, and it goes nowhere else")
    with tempfile.TemporaryDirectory(prefix="phikit-build-") as scratch:
        rehearsal.blobs.download_all(place[0], f"{place[1].strip('/')}/", Path(scratch))
        options = ["--quiet", "--tag", name, "--label", label(rehearsal.home), "--file", f"{scratch}/{dockerfile}"]
        code, said = _docker(rehearsal, "build", *options, scratch)
    if code:
        log = "\n".join(said.splitlines()[-SHOWN:])
        raise WireError(400, "ImageBuildFailure", f"Image build failed. {log}")


def _docker(rehearsal: Rehearsal, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a docker command, which ends with the emulator if it has not before."""
    environment = inherited() | Settings.load().pick("DOCKER_HOST")
    process = rehearsal.processes.start("docker", ["docker", *arguments], environment=environment)
    said = process.communicate()[0].decode(errors="replace")
    return rehearsal.processes.end(process, grace=0), said
