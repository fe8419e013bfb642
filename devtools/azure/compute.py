"""The cluster that jobs run on: no nodes at rest, found or made, in one of two profiles.

profile = profile_of(settings, gpu=True)
examine(workspace, profile)          # size, quota, price; nothing is made
ensure(workspace, profile)
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devtools.azure import prices, quota
from devtools.azure.endpoint import until_settled
from devtools.azure.progress import say
from devtools.azure.refusals import is_missing, told
from devtools.azure.tags import is_ours, ours
from devtools.azure.workspace import Workspace
from devtools.errors import BadInput, KitError, nearest
from devtools.settings import Settings

if TYPE_CHECKING:
    from azure.ai.ml.entities import AmlCompute

#: The tutorial's own clusters and sizes (T15): name, size.
CPU = ("cpu-e16s-v3", "Standard_E16s_v3")
GPU = ("gpu-nc24s-a100-v4", "Standard_NC24ads_A100_v4")
#: 3 to 24 characters, as the service has it for clusters; a number behind a dash is what it names nodes with.
NAME = re.compile(r"(?!.*-\d+$)[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]")
PRIORITIES = {"dedicated": "dedicated", "low": "low_priority"}
IDLE, NODES, HOURS = 120, 1, 24


@dataclass(frozen=True)
class Profile:
    """What a cluster is to be."""

    name: str
    size: str
    gpu: bool
    """Whether its nodes need one."""
    nodes: int
    low: bool
    idle: int
    """Seconds after which an idle node goes."""
    hours: int
    """Hours that a job may take."""


@dataclass(frozen=True)
class Offer:
    """What a cluster is, or will be, and what its nodes cost."""

    cluster: AmlCompute | None
    """None: it is not there yet."""
    size: str
    low: bool
    hourly: float | None
    """US dollars an hour for one node while a job runs."""


def profile_of(settings: Settings, gpu: bool) -> Profile:
    """The cluster that the settings ask for; raises BadInput with every finding."""
    name, size = GPU if gpu else CPU
    findings: list[str] = []

    def number(variable: str, text: str | None, default: int) -> int:
        if text and not (text.isdecimal() and int(text) > 0):
            findings.append(f"{variable}={text}: must be a whole number of 1 or more")
            return default
        return int(text) if text else default

    name = settings.azure_cluster or name
    if not NAME.fullmatch(name):
        findings.append(
            f"--cluster {name[:40]}: must be 3 to 24 letters, digits and '-', begin with a letter and not end in a "
            "dash and a number (unset: PHIKIT_AZURE_CLUSTER)"
        )
    priority = settings.azure_priority or "dedicated"
    if priority not in PRIORITIES:
        findings.append(f"PHIKIT_AZURE_PRIORITY={priority}: {nearest(priority, PRIORITIES)}")
    profile = Profile(
        name=name,
        size=settings.azure_size or size,
        gpu=gpu,
        nodes=number("PHIKIT_AZURE_NODES", settings.azure_nodes, NODES),
        low=priority == "low",
        idle=number("PHIKIT_AZURE_IDLE", settings.azure_idle, IDLE),
        hours=number("PHIKIT_AZURE_HOURS", settings.azure_hours, HOURS),
    )
    if findings:
        raise BadInput(findings)
    return profile


def find(workspace: Workspace, name: str) -> AmlCompute | None:
    """The cluster of that name; None where there is none."""
    from azure.core.exceptions import AzureError

    with told(f"cluster {name}"):
        try:
            return workspace.client.compute.get(name)
        except AzureError as error:
            if not is_missing(error):
                raise
    return None


def examine(workspace: Workspace, profile: Profile) -> Offer:
    """Look before anything is made or spent.

    Raises:
        BadInput: the region has no such size, or the name is that of something else.
        KitError: the quota does not allow a node.
    """
    cluster = find(workspace, profile.name)
    name, low = profile.size, profile.low
    if cluster is not None:
        if cluster.type != "amlcompute":
            raise BadInput(f"--cluster {profile.name}: is a {cluster.type}, no cluster; name another one")
        name, low = cluster.size, cluster.tier == "low_priority"
        if (name.lower(), low) != (profile.size.lower(), profile.low):
            say(f"cluster {profile.name}: is there, taken as it is: {name}{' at low priority' if low else ''}")
    size = quota.find(workspace, name)
    if profile.gpu and not size.gpus:
        what = f"cluster {profile.name}" if cluster else "PHIKIT_AZURE_SIZE"
        raise BadInput(f"{what}: {size.name} has no GPU; name another one, or a recipe for CPUs")
    if cluster is None or not (cluster.min_instances or 0):
        # nodes that are there already are in the quota's count
        try:
            quota.check(workspace, size, 1, low=low)
        except KitError as error:
            if cluster is None:
                raise
            # (its own nodes count, and may be at rest in a moment)
            say(f"cluster {profile.name}: {error}; till then the job waits for a node")
    return Offer(cluster, size.name, low, prices.hourly(size.name, workspace.location, low))


def ensure(workspace: Workspace, profile: Profile) -> str:
    """Have the cluster, and say its name: at once when it is there, else after a minute or so.

    Raises KitError when the service refuses it; what was half made is taken away again, if the kit made it.
    """
    from azure.ai.ml.entities import AmlCompute
    from azure.core.exceptions import AzureError

    cluster = until_settled(lambda: find(workspace, profile.name), f"cluster {profile.name}")
    state = (cluster.provisioning_state or "").lower() if cluster else ""
    if state == "succeeded":
        return profile.name
    if cluster is not None and not is_ours(cluster.tags):
        raise KitError(f"cluster {profile.name}: is {state}, and was not made by the kit; mend it, or name another one")
    wanted = AmlCompute(
        name=profile.name,
        size=profile.size,
        min_instances=0,
        max_instances=profile.nodes,
        tier=PRIORITIES["low" if profile.low else "dedicated"],
        idle_time_before_scale_down=profile.idle,
        tags=ours(),
    )
    with told(f"cluster {profile.name}"):
        if state == "failed":
            workspace.client.compute.begin_delete(profile.name).result()
        if cluster is None or state == "failed":
            say(f"cluster {profile.name}: making it ({profile.size}, 0 to {profile.nodes} nodes)")
        try:
            workspace.client.compute.begin_create_or_update(wanted).result()
        except AzureError:
            if cluster is None:
                _remove_failed(workspace, profile.name)
            raise
    return profile.name


def _remove_failed(workspace: Workspace, name: str) -> None:
    """Leave no cluster behind that could not be made; what is said is why it could not."""
    from azure.core.exceptions import AzureError

    with contextlib.suppress(AzureError):
        if workspace.client.compute.get(name).provisioning_state.lower() == "failed":
            workspace.client.compute.begin_delete(name).result()
