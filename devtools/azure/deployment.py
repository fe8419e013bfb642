"""A deployment: serving/deployment.yaml with a model, the image by digest, a name and a size; and what it carries.

wanted = Wanted(model="phikit:3", instance="Standard_F8s_v2", run="my-run")
make(workspace, "my-endpoint", "green", wanted)
"""

from __future__ import annotations

import io
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devtools.azure import endpoint, image, quota
from devtools.azure.endpoint import DEPLOYMENT
from devtools.azure.refusals import told
from devtools.azure.tags import ours
from devtools.azure.workspace import Workspace, uploading
from devtools.errors import KitError

if TYPE_CHECKING:
    from azure.ai.ml.entities import Environment, ManagedOnlineDeployment

NAMES = ("blue", "green")
#: Tags that say what a deployment is.
MODEL, IMAGE, RUN = "model", "image", "run"
#: States in which the service still works on one.
BUSY = ("creating", "updating", "scaling", "deleting")
#: Seconds that one that is being made by somebody else is waited for, and between two looks.
PATIENCE, PERIOD = 3600, 2


@dataclass(frozen=True)
class Wanted:
    """What is to be deployed."""

    model: str
    """`name:version`"""
    size: quota.Size
    run: str | None = None

    @property
    def gpu(self) -> bool:
        """Whether it runs in the GPU image."""
        return self.size.gpus > 0


def environment_of(workspace: Workspace, wanted: Wanted) -> Environment:
    """The serving environment: the runtime image with the routes that the file names."""
    import yaml

    told = yaml.safe_load(DEPLOYMENT.read_text(encoding="utf-8"))
    return image.environment(workspace, wanted.gpu, told["environment"]["inference_config"])


def is_same(found: ManagedOnlineDeployment, wanted: Wanted, environment: Environment) -> bool:
    """Whether a deployment is just what is wanted: model, image, size."""
    tags = found.tags or {}
    return (tags.get(MODEL), tags.get(IMAGE), found.instance_type) == (
        wanted.model,
        environment.version,
        wanted.size.name,
    )


def make(workspace: Workspace, name: str, deployment: str, wanted: Wanted, environment: Environment) -> None:
    """Start a deployment and wait until it is ready, with no traffic. Raises KitError when it does not start."""
    from azure.ai.ml import load_online_deployment

    overrides: list[dict[str, Any]] = [
        {"name": deployment},
        {"endpoint_name": name},
        {"model": f"azureml:{wanted.model}"},
        {"environment": f"azureml:{environment.name}:{environment.version}"},
        {"instance_type": wanted.size.name},
    ]
    made = load_online_deployment(source=DEPLOYMENT, params_override=overrides)
    made.tags = ours(**{MODEL: wanted.model, IMAGE: environment.version, RUN: wanted.run})
    print(f"deployment {deployment}: {wanted.model} on {wanted.size.name}, starting", file=sys.stderr, flush=True)
    # (the SDK writes a dot a second to standard output)
    with told(f"deployment {deployment}"), redirect_stdout(io.StringIO()):
        with uploading():
            poller = workspace.client.online_deployments.begin_create_or_update(made)
        poller.result()


def settled(workspace: Workspace, name: str, deployment: str) -> ManagedOnlineDeployment | None:
    """A deployment once the service is done with it; None where it went. Raises KitError when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    said = False
    while True:
        found = endpoint.deployments(workspace, name).get(deployment)
        if found is None or (found.provisioning_state or "").lower() not in BUSY:
            return found
        if not said:
            said = True
            print(f"deployment {deployment}: is {found.provisioning_state}, waiting", file=sys.stderr, flush=True)
        if time.monotonic() > deadline:
            raise KitError(
                f"deployment {deployment}: is still {found.provisioning_state} after {PATIENCE / 60:.0f} min"
            )
        time.sleep(PERIOD)
