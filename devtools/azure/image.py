"""The runtime image on Azure: pushed and used by its digest, or built there from the same Dockerfile.

phikit azure image
environment(workspace, gpu=False)        # an environment of the workspace, reused when it is the same image

The environment's version carries the digest, or the hash of the files that Azure builds from: what is the same is there
already, and what differs never takes its name.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.azure import registry
from devtools.azure.progress import say
from devtools.azure.refusals import is_missing, told
from devtools.azure.tags import ours
from devtools.azure.workspace import Workspace, uploading
from devtools.errors import BadInput, KitError, nearest
from devtools.settings import ROOT, Settings

if TYPE_CHECKING:
    from azure.ai.ml.entities import Environment

MODES = ("auto", "push", "build")
REPOSITORY = "phikit-runtime"
#: What docker/runtime.Dockerfile copies or mounts from the checkout.
CONTEXT = ("docker/runtime.Dockerfile", "docker/build", "docker/runtime.lock", "docker/serve.sh")
DOCKERFILE = "docker/runtime.Dockerfile"
LOCKS = {False: "docker/torch-cpu.lock", True: "docker/torch-cu129.lock"}
#: Characters of a digest that make a version.
SHORT = 16


@dataclass(frozen=True)
class Source:
    """Where an environment's image comes from: one of the two is set."""

    image: str | None = None
    """`server/phikit-runtime@sha256:...`"""
    context: Path | None = None
    """A folder with everything that docker/runtime.Dockerfile needs."""
    digest: str = ""
    """Of the image, or of the folder's content."""


def environment(workspace: Workspace, gpu: bool = False, inference_config: dict[str, Any] | None = None) -> Environment:
    """The workspace's environment with the runtime image; pushed or sent to be built when it is not there yet.

    Args:
        inference_config: routes of a server in it, as serving/deployment.yaml names them; an endpoint needs them.

    Raises:
        BadInput: PHIKIT_AZURE_IMAGE is no mode.
        KitError: there is no image and none can be built, or the registry refuses it.
    """
    from azure.ai.ml.entities import BuildContext, Environment
    from azure.core.exceptions import AzureError

    name = ("phikit-serving" if inference_config else "phikit-runtime") + ("-gpu" if gpu else "")
    with tempfile.TemporaryDirectory(prefix="phikit-context-") as scratch:
        source = _source(workspace, gpu, Path(scratch))
        version = source.digest[:SHORT]
        if inference_config:
            routes = json.dumps(inference_config, sort_keys=True).encode()
            version += f"-{hashlib.sha256(routes).hexdigest()[:6]}"
        with told(f"environment {name}:{version}"):
            try:
                return workspace.client.environments.get(name, version)
            except AzureError as error:
                if not is_missing(error):
                    raise
            made = Environment(
                name=name,
                version=version,
                image=source.image,
                build=BuildContext(path=source.context, dockerfile_path=DOCKERFILE) if source.context else None,
                inference_config=inference_config,
                tags=ours(digest=source.digest),
                description="phikit's runtime image: dependencies only, the code comes with each job",
            )
            with uploading():
                return workspace.client.environments.create_or_update(made)


def _source(workspace: Workspace, gpu: bool, scratch: Path) -> Source:
    mode = workspace.settings.azure_image or "auto"
    if mode not in MODES:
        raise BadInput(f"PHIKIT_AZURE_IMAGE={mode}: {nearest(mode, MODES)}")
    if mode != "build":
        from devtools.local import engine

        try:
            client = engine(workspace.settings)
        except KitError as error:
            if mode == "push":
                raise
            say(f"{error}; so Azure builds the image")
        else:
            return _pushed(workspace, client, gpu)
    return build_context(workspace.settings, gpu, scratch)


def _pushed(workspace: Workspace, engine: Any, gpu: bool) -> Source:
    from devtools import image

    variant = "gpu" if gpu else "cpu"
    name = f"{REPOSITORY}:{variant}"
    image.ensure(engine, name, workspace.settings)
    # the same image has the same id wherever it is; its digest is known once it is in a registry
    tag = f"{variant}-{engine.images.get(name).id.removeprefix('sha256:')[:SHORT]}"
    place = registry.of(workspace)
    digest = place.digest(REPOSITORY, tag)
    if digest is None:
        digest = place.push(engine, name, REPOSITORY, tag)
    return Source(image=f"{place.server}/{REPOSITORY}@{digest}", digest=digest.removeprefix("sha256:"))


def build_context(settings: Settings, gpu: bool, folder: Path) -> Source:
    """Gather in `folder` what Azure builds the image from, with the base and the lock as defaults of the Dockerfile."""
    lock = LOCKS[gpu]
    for name in (*CONTEXT, lock):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    dockerfile = folder / DOCKERFILE
    text = dockerfile.read_text(encoding="utf-8")
    arguments = {"TORCH_LOCK": Path(lock).name, "BASE_IMAGE": _base(settings, gpu)}
    if gpu:
        # the one Python that the CUDA build's lock has a file for
        arguments["PYTHONS"] = '"3.12"'
    for argument, value in arguments.items():
        text = re.sub(rf"^ARG {argument}=.*$", f"ARG {argument}={value}", text, flags=re.MULTILINE)
    dockerfile.write_text(text, encoding="utf-8")
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return Source(context=folder, digest=digest.hexdigest())


def _base(settings: Settings, gpu: bool) -> str:
    """The base image: as the settings name it, else the default of docker/bases.yaml."""
    import yaml

    asked = settings.base_image_gpu if gpu else settings.base_image
    if asked:
        return asked
    listed = yaml.safe_load((ROOT / "docker" / "bases.yaml").read_text(encoding="utf-8"))["bases"]
    return next(base["image"] for base in listed if base.get("default") == ("gpu" if gpu else "cpu"))
