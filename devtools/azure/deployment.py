"""A deployment: serving/deployment.yaml with a model, the image by digest, a name and a size; and what it carries.

wanted = Wanted(model="phikit:3", size=size, environment=environment_of(workspace, gpu=False))
make(workspace, "my-endpoint", "green", wanted)

Its tags say what it was made of: the same content is the same deployment, whoever made it, whenever.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.azure import image, quota
from devtools.azure.endpoint import CONFLICT, DEPLOYMENT, deployments, state_of, until_settled
from devtools.azure.progress import finished, say
from devtools.azure.refusals import told
from devtools.azure.tags import ours
from devtools.azure.workspace import Workspace, uploading
from devtools.errors import KitError

if TYPE_CHECKING:
    from azure.ai.ml.entities import Environment, ManagedOnlineDeployment

NAMES = ("blue", "green")
#: Tags: the model and the environment (`name:version`), the run, all that it was made of, the one that it takes after.
MODEL, ENVIRONMENT, RUN, CONTENT, REPLACES = "model", "environment", "run", "content", "replaces"
SUCCEEDED = "Succeeded"
#: Characters of a digest, and lines of a container's log that are shown.
SHORT, LINES = 16, 40


class Broken(KitError):
    """A deployment that does not do what it has to: it is taken back, and what was there before goes on."""


@dataclass(frozen=True)
class Wanted:
    """What is to be deployed."""

    model: str
    """`name:version`"""
    size: quota.Size
    environment: Environment
    run: str | None = None

    @cached_property
    def content(self) -> str:
        """A digest of all that makes a difference: model, image, size, the file's settings, the server's code."""
        parts = {
            "model": self.model,
            "environment": name_of(self.environment),
            "size": self.size.name,
            "settings": {key: value for key, value in settings().items() if key not in ("name", "endpoint_name")},
            "code": _digest_of_code(DEPLOYMENT.parent / settings()["code_configuration"]["code"]),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:SHORT]

    def is_in(self, found: ManagedOnlineDeployment) -> bool:
        """Whether a deployment is just that."""
        return (found.tags or {}).get(CONTENT) == self.content


def settings() -> dict[str, Any]:
    """serving/deployment.yaml."""
    import yaml

    return yaml.safe_load(DEPLOYMENT.read_text(encoding="utf-8"))


def count() -> int:
    """Instances of a deployment."""
    return int(settings().get("instance_count") or 1)


def name_of(environment: Environment) -> str:
    """`name:version`"""
    return f"{environment.name}:{environment.version}"


def environment_of(workspace: Workspace, gpu: bool) -> Environment:
    """The serving environment: the runtime image with the routes that the file names."""
    return image.environment(workspace, gpu, settings()["environment"]["inference_config"])


def make(workspace: Workspace, name: str, deployment: str, wanted: Wanted, replaces: str | None) -> None:
    """Start a deployment and wait until it is ready, with no traffic.

    Raises:
        Broken: it does not start; it is there, and of no use.
        KitError: the service does not take it, or cannot be reached; it may still become ready.
    """
    from azure.ai.ml import load_online_deployment

    overrides: list[dict[str, Any]] = [
        {"name": deployment},
        {"endpoint_name": name},
        {"model": f"azureml:{wanted.model}"},
        {"environment": f"azureml:{name_of(wanted.environment)}"},
        {"instance_type": wanted.size.name},
    ]
    made = load_online_deployment(source=DEPLOYMENT, params_override=overrides)
    tags = {MODEL: wanted.model, ENVIRONMENT: name_of(wanted.environment), RUN: wanted.run}
    made.tags = ours(**tags, **{CONTENT: wanted.content, REPLACES: replaces})
    say(f"deployment {deployment}: {wanted.model} on {wanted.size.name}, starting (minutes)")

    def begin() -> Any:
        with uploading():
            return workspace.client.online_deployments.begin_create_or_update(made)

    try:
        with told(f"deployment {deployment}"):
            finished(begin, f"deployment {deployment}")
    except KitError as error:
        there = deployments(workspace, name).get(deployment)
        if there is not None and state_of(there) in ("Failed", "Canceled"):
            raise Broken(str(error)) from error
        raise


def settled(workspace: Workspace, name: str, deployment: str) -> ManagedOnlineDeployment | None:
    """A deployment once the service is done with it; None where it is not there, or went."""
    return until_settled(lambda: deployments(workspace, name).get(deployment), f"deployment {deployment}")


def remove(workspace: Workspace, name: str, deployment: str) -> None:
    """Delete a deployment that gets no traffic, or that is still being made."""
    from azure.core.exceptions import HttpResponseError

    if deployment not in deployments(workspace, name):
        return

    def delete() -> None:
        client = workspace.client.online_deployments
        finished(lambda: client.begin_delete(name=deployment, endpoint_name=name), f"deployment {deployment}")

    with told(f"deployment {deployment}"):
        try:
            delete()
        except HttpResponseError as error:
            if error.status_code != CONFLICT:
                raise
            # something is being done with it: once that is over
            if settled(workspace, name, deployment) is not None:
                delete()


def log(workspace: Workspace, name: str, deployment: str, lines: int = LINES) -> str:
    """The end of what a deployment's container said; empty where the service has nothing."""
    from azure.core.exceptions import AzureError

    try:
        return workspace.client.online_deployments.get_logs(deployment, name, lines=lines) or ""
    except AzureError:
        return ""


def _digest_of_code(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*.py") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
