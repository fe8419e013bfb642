"""The managed endpoint: its name, its identity, its deployments, who gets how much of the traffic.

name = name_of(workspace)
endpoint = find(workspace, name)        # None: not there yet

What it is stands in serving/endpoint.yaml; what answers behind it is a deployment (devtools/azure/deployment.py).
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from devtools.azure.progress import finished, say
from devtools.azure.refusals import is_missing, told
from devtools.azure.tags import is_ours, ours
from devtools.azure.workspace import Workspace
from devtools.errors import BadInput, KitError
from devtools.settings import ROOT, Settings

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint

FILE = ROOT / "serving" / "endpoint.yaml"
DEPLOYMENT = ROOT / "serving" / "deployment.yaml"
#: 3 to 32 characters, as the service has it.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
IDENTITY = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+",
    re.IGNORECASE,
)
#: Letters of the workspace's id that make a name nobody else's in the region.
SHORT = 8
#: States in which the service works on something, and what it answers whoever wants to change that then.
BUSY = ("creating", "updating", "scaling", "deleting")
CONFLICT = 409
#: Seconds that somebody else's change is waited for, and between two looks.
PATIENCE, PERIOD = 3600.0, 2.0


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


def check(settings: Settings, asked: str | None) -> list[str]:
    """What is wrong with the names that are told, before anybody signs in."""
    findings = []
    try:
        if name := asked or settings.azure_endpoint:
            check_name(name, "--endpoint" if asked else "PHIKIT_AZURE_ENDPOINT")
    except BadInput as error:
        findings += error.findings
    if settings.azure_identity and not IDENTITY.fullmatch(settings.azure_identity):
        findings.append(
            f"PHIKIT_AZURE_IDENTITY={settings.azure_identity[:80]}: must be a resource id; `az identity list --query "
            "[].id` shows those that there are"
        )
    return findings


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


def settled(workspace: Workspace, name: str) -> ManagedOnlineEndpoint | None:
    """The endpoint once the service is done with it; None where it is not there, or went."""
    return until_settled(lambda: find(workspace, name), f"endpoint {name}")


def state_of(found: ManagedOnlineEndpoint | ManagedOnlineDeployment) -> str:
    """The state of an endpoint or a deployment in the service's word."""
    # (an enumeration of strings, whose text may be its own name)
    return str(getattr(found.provisioning_state, "value", found.provisioning_state) or "")


def until_settled(look: Any, what: str) -> Any:
    """What `look` gives once it is None or in no state in which the service works on it.

    Raises:
        KitError: it takes too long.
    """
    deadline, said = time.monotonic() + PATIENCE, ""
    while True:
        found = look()
        state = state_of(found) if found is not None else ""
        if state.lower() not in BUSY:
            return found
        if state != said:
            said = state
            say(f"{what}: is {state}, waiting")
        if time.monotonic() > deadline:
            raise KitError(f"{what}: is still {state} after {PATIENCE / 60:.0f} min; give the same command again")
        threading.Event().wait(PERIOD)


def refuse_foreign(found: ManagedOnlineEndpoint | None) -> None:
    """Raise BadInput for an endpoint that the kit did not make: what is behind it is somebody else's."""
    if found is not None and not is_ours(found.tags):
        raise BadInput(
            f"endpoint {found.name}: is there and was not made by the kit; choose another name: --endpoint, or "
            "PHIKIT_AZURE_ENDPOINT"
        )


def ensure(workspace: Workspace, name: str) -> bool:
    """Have the endpoint, and say whether it was made just now: a minute or so the first time.

    Raises:
        BadInput: it is somebody else's.
        KitError: the service refuses it.
    """
    found = settled(workspace, name)
    refuse_foreign(found)
    if found is not None and state_of(found).lower() == "succeeded":
        _say_other_identity(workspace, found)
        return False
    if found is not None and deployments(workspace, name):
        # as it was read, traffic and all: somebody may be asking what is behind it
        say(f"endpoint {name}: is {state_of(found)}, mending it")
        change(workspace, name)
        return False
    if found is not None:
        # (one that failed cannot be mended, and there is nothing behind it)
        remove(workspace, name)
    mine = workspace.settings.azure_identity
    say(f"endpoint {name}: making it, as {mine.rpartition('/')[2] if mine else 'an identity of its own'}")
    with told(f"endpoint {name}"):
        client = workspace.client.online_endpoints
        finished(lambda: client.begin_create_or_update(_wanted(name, mine)), f"endpoint {name}")
    return True


def _wanted(name: str, identity: str | None) -> ManagedOnlineEndpoint:
    from azure.ai.ml import load_online_endpoint
    from azure.ai.ml.entities import IdentityConfiguration, ManagedIdentityConfiguration

    wanted = load_online_endpoint(source=FILE, params_override=[{"name": name}])
    wanted.tags = ours()
    if identity:
        wanted.identity = IdentityConfiguration(
            type="user_assigned", user_assigned_identities=[ManagedIdentityConfiguration(resource_id=identity)]
        )
    return wanted


def _say_other_identity(workspace: Workspace, found: ManagedOnlineEndpoint) -> None:
    """An endpoint's identity is for good: what the settings say counts for the next one."""
    mine = (workspace.settings.azure_identity or "").lower()
    assigned = getattr(found.identity, "user_assigned_identities", None) or []
    if mine and mine not in {(one.resource_id or "").lower() for one in assigned}:
        say(
            f"endpoint {found.name}: was made with another identity than PHIKIT_AZURE_IDENTITY, and keeps it; "
            "it counts once the endpoint is made anew (phikit azure down)"
        )


def deployments(workspace: Workspace, name: str) -> dict[str, ManagedOnlineDeployment]:
    """The endpoint's deployments by their names."""
    with told(f"endpoint {name}"):
        return {found.name: found for found in workspace.client.online_deployments.list(name)}


def shares(endpoint: ManagedOnlineEndpoint) -> dict[str, int]:
    """The deployments that get traffic, with their percents."""
    return {name: percent for name, percent in (endpoint.traffic or {}).items() if percent}


def live(endpoint: ManagedOnlineEndpoint) -> str | None:
    """The deployment that gets the most of the traffic; None when there is none."""
    traffic = shares(endpoint)
    return max(traffic, key=lambda name: traffic[name]) if traffic else None


def change(workspace: Workspace, name: str, traffic: dict[str, int] | None = None, **tags: str | None) -> None:
    """Change the endpoint as it is now: its traffic, and tags of it (None takes one away).

    Returns when the service has done so; what somebody else changes meanwhile is waited for.
    """
    from azure.core.exceptions import HttpResponseError

    deadline = time.monotonic() + PATIENCE
    with told(f"endpoint {name}"):
        while True:
            endpoint = settled(workspace, name) or require(workspace, name)
            if traffic is not None:
                endpoint.traffic = traffic
            kept = {key: value for key, value in (endpoint.tags or {}).items() if tags.get(key, value) is not None}
            endpoint.tags = kept | {key: value for key, value in tags.items() if value is not None}
            try:
                client = workspace.client.online_endpoints
                finished(lambda: client.begin_create_or_update(endpoint), f"endpoint {name}")  # noqa: B023
                return
            except HttpResponseError as error:
                if error.status_code != CONFLICT or time.monotonic() > deadline:
                    raise
            threading.Event().wait(PERIOD)


def remove(workspace: Workspace, name: str) -> None:
    """Delete the endpoint and its deployments; one that goes already is waited for."""
    if settled(workspace, name) is not None:
        with told(f"endpoint {name}"):
            finished(lambda: workspace.client.online_endpoints.begin_delete(name), f"endpoint {name}")


def keys(workspace: Workspace, name: str) -> Any:
    """The endpoint's keys: `primary_key` and `secondary_key`."""
    with told(f"keys of endpoint {name}"):
        found = workspace.client.online_endpoints.get_keys(name)
    if not getattr(found, "primary_key", None):
        raise KitError(f"endpoint {name}: has no keys; the kit's endpoints use auth_mode key")
    return found
