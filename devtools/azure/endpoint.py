"""The managed endpoint: its name, its identity, its deployments, who gets how much of the traffic.

name = name_of(workspace)
endpoint = find(workspace, name)        # None: not there yet

What it is stands in serving/endpoint.yaml; what answers behind it is a deployment (devtools/azure/deployment.py).
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from devtools.azure.refusals import is_missing, told
from devtools.azure.tags import ours
from devtools.azure.workspace import Workspace
from devtools.errors import BadInput, KitError
from devtools.settings import ROOT, Settings

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint

FILE = ROOT / "serving" / "endpoint.yaml"
DEPLOYMENT = ROOT / "serving" / "deployment.yaml"
#: 3 to 32 characters, as the service has it.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
#: Letters of the workspace's id that make a name nobody else's in the region.
SHORT = 8


def name_of(workspace: Workspace, asked: str | None = None) -> str:
    """The endpoint's name: as asked, as the settings say, or one of the workspace's own."""
    name = asked or workspace.settings.azure_endpoint
    if name:
        return check_name(name, "--endpoint" if asked else "PHIKIT_AZURE_ENDPOINT")
    return f"phikit-{str(workspace.facts['properties'].get('workspaceId', ''))[-SHORT:].lower()}"


def check_name(name: str, option: str) -> str:
    """The name, if an endpoint may have it; raises BadInput if not."""
    if not NAME.fullmatch(name):
        raise BadInput(
            f"{option} {name[:40]}: must be 3 to 32 letters, digits and '-', begin with a letter and not end in '-'"
        )
    return name


def instance_of(settings: Settings, asked: str | None = None) -> str:
    """The VM size of a deployment's instances: as asked, as the settings say, or as serving/deployment.yaml does."""
    import yaml

    told = yaml.safe_load(DEPLOYMENT.read_text(encoding="utf-8"))
    return asked or settings.azure_instance or str(told["instance_type"])


def find(workspace: Workspace, name: str) -> ManagedOnlineEndpoint | None:
    """The endpoint of that name; None where the workspace has none."""
    from azure.core.exceptions import AzureError

    with told(f"endpoint {name}"):
        try:
            return workspace.client.online_endpoints.get(name)
        except AzureError as error:
            if not is_missing(error):
                raise
    return None


def require(workspace: Workspace, name: str) -> ManagedOnlineEndpoint:
    """The endpoint of that name; raises BadInput where there is none."""
    found = find(workspace, name)
    if found is None:
        raise BadInput(
            f"endpoint {name}: workspace {workspace.name} has none of that name; phikit azure deploy makes it"
        )
    return found


def ensure(workspace: Workspace, name: str) -> ManagedOnlineEndpoint:
    """Have the endpoint: a minute or so the first time. Raises KitError when the service refuses it."""
    from azure.ai.ml import load_online_endpoint
    from azure.ai.ml.entities import IdentityConfiguration, ManagedIdentityConfiguration

    found = find(workspace, name)
    if found is not None and (found.provisioning_state or "").lower() == "succeeded":
        return found
    with told(f"endpoint {name}"):
        if found is not None and (found.provisioning_state or "").lower() == "failed":
            workspace.client.online_endpoints.begin_delete(name).result()
        wanted = load_online_endpoint(source=FILE, params_override=[{"name": name}])
        wanted.tags = ours()
        mine = workspace.settings.azure_identity
        if mine:
            wanted.identity = IdentityConfiguration(
                type="user_assigned", user_assigned_identities=[ManagedIdentityConfiguration(resource_id=mine)]
            )
        as_whom = mine.rpartition("/")[2] if mine else "an identity of its own"
        _say(f"endpoint {name}: making it, as {as_whom}")
        workspace.client.online_endpoints.begin_create_or_update(wanted).result()
        return workspace.client.online_endpoints.get(name)


def deployments(workspace: Workspace, name: str) -> dict[str, ManagedOnlineDeployment]:
    """The endpoint's deployments by their names."""
    with told(f"endpoint {name}"):
        return {found.name: found for found in workspace.client.online_deployments.list(name)}


def live(endpoint: ManagedOnlineEndpoint) -> str | None:
    """The deployment that gets the most of the traffic; None when there is none."""
    traffic = {name: percent for name, percent in (endpoint.traffic or {}).items() if percent}
    return max(traffic, key=lambda name: traffic[name]) if traffic else None


def set_traffic(workspace: Workspace, name: str, traffic: dict[str, int]) -> None:
    """Share out the traffic; returns when the service has done so."""
    change(workspace, name, traffic=traffic)


def change(workspace: Workspace, name: str, traffic: dict[str, int] | None = None, **tags: str | None) -> None:
    """Change the endpoint as it is now: its traffic, and tags of it (None takes one away)."""
    with told(f"endpoint {name}"):
        endpoint = workspace.client.online_endpoints.get(name)
        if traffic is not None:
            endpoint.traffic = traffic
        kept = {key: value for key, value in (endpoint.tags or {}).items() if tags.get(key, value) is not None}
        endpoint.tags = kept | {key: value for key, value in tags.items() if value is not None}
        # mirrored traffic that nobody asked for is none
        workspace.client.online_endpoints.begin_create_or_update(endpoint).result()


def remove(workspace: Workspace, name: str) -> None:
    """Delete the endpoint and its deployments."""
    with told(f"endpoint {name}"):
        workspace.client.online_endpoints.begin_delete(name).result()


def remove_deployment(workspace: Workspace, name: str, deployment: str) -> None:
    """Delete a deployment that gets no traffic."""
    with told(f"deployment {deployment}"):
        workspace.client.online_deployments.begin_delete(name=deployment, endpoint_name=name).result()


def container_log(workspace: Workspace, name: str, deployment: str, lines: int = 40) -> str:
    """The end of what a deployment's container said; empty where the service has nothing."""
    from azure.core.exceptions import AzureError

    try:
        return workspace.client.online_deployments.get_logs(deployment, name, lines=lines) or ""
    except AzureError:
        return ""


def keys(workspace: Workspace, name: str) -> Any:
    """The endpoint's keys: `primary_key` and `secondary_key`."""
    with told(f"keys of endpoint {name}"):
        found = workspace.client.online_endpoints.get_keys(name)
    if not getattr(found, "primary_key", None):
        raise KitError(f"endpoint {name}: has no keys; the kit's endpoints use auth_mode key")
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
