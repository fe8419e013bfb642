"""VM sizes and what the subscription may still use of them: known before anything is asked for.

size = find(workspace, "Standard_NC24ads_A100_v4")
check(workspace, size, nodes=2)

Azure Machine Learning has quotas of its own, for clusters and endpoints together (learn.microsoft.com: "Manage and
increase quotas and limits for resources with Azure Machine Learning").
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from devtools.azure.progress import say
from devtools.azure.refusals import QUOTA, told
from devtools.azure.workspace import API_VERSION, Workspace
from devtools.errors import BadInput, KitError, nearest

#: What an endpoint needs beyond its own instances: Azure keeps a fifth for updates, but not of these.
RESERVE = 1.2
WITHOUT_RESERVE = re.compile(r"Standard_N[CD]\w*_A100_v4|Standard_ND96asr_v4|Standard_ND40rs_v2", re.IGNORECASE)
#: The low-priority quota is one for all families.
LOW_PRIORITY = "TotalLowPriorityCores"
FORBIDDEN = 403


@dataclass(frozen=True)
class Size:
    """A VM size of the workspace's region."""

    name: str
    family: str
    cores: int
    memory: float
    """GiB."""
    gpus: int


@dataclass(frozen=True)
class Room:
    """A quota: cores in use and at most."""

    label: str
    used: int
    limit: int

    @property
    def free(self) -> int:
        """Cores that are left."""
        return max(0, self.limit - self.used)


def find(workspace: Workspace, name: str, setting: str = "PHIKIT_AZURE_SIZE") -> Size:
    """The size of that name, as far as its name tells where one may not look; raises BadInput when there is none."""
    found = _look(workspace, "vmSizes")
    if found is None:
        cores = re.search(r"(?<=[A-Za-z])\d+", name)
        return Size(name, "", int(cores[0]) if cores else 0, 0, int(bool(re.match(r"standard_n", name, re.IGNORECASE))))
    sizes = {
        one["name"].lower(): Size(one["name"], one["family"], one["vCPUs"], one["memoryGB"], one.get("gpus") or 0)
        for one in found.get("value") or found.get("amlCompute") or ()
    }
    if name.lower() not in sizes:
        names = {size.name for size in sizes.values()}
        raise BadInput(f"{setting}={name}: {workspace.location} has no such size; {nearest(name, names)}")
    return sizes[name.lower()]


def room(workspace: Workspace, size: Size, low: bool = False) -> Room | None:
    """What is left of the quota that a size counts against; None where the service does not say, or not to us."""
    found = _look(workspace, "usages") or {}
    wanted = LOW_PRIORITY if low else size.family
    for one in found.get("value", ()):
        # (families have a second entry of that name for low priority, which counts nothing)
        if one["name"]["value"].lower() == wanted.lower() and (low or "lowPriority" not in one.get("type", "")):
            return Room(one["name"].get("localizedValue") or wanted, one["currentValue"], one["limit"])
    return None


def needed(size: Size, count: int, endpoint: bool = False) -> int:
    """Cores that so many machines count for."""
    if endpoint and not WITHOUT_RESERVE.fullmatch(size.name):
        count = math.ceil(count * RESERVE)
    return size.cores * count


def check(workspace: Workspace, size: Size, count: int, *, low: bool = False, endpoint: bool = False) -> None:
    """Return when the quota allows so many machines; raises KitError with family, limit and need when it does not."""
    found, cores = room(workspace, size, low), needed(size, count, endpoint)
    if found and found.free < cores:
        raise KitError(
            f"quota: {size.name} needs {cores} cores, and of {found.label} {found.free} of {found.limit} are left in "
            f"{workspace.location}; {QUOTA}"
        )


def _look(workspace: Workspace, what: str) -> dict[str, Any] | None:
    """What the region has; None for whoever has a role on the workspace alone: it is the subscription that tells."""
    from azure.core.exceptions import HttpResponseError

    path = f"/subscriptions/{workspace.subscription}/providers/Microsoft.MachineLearningServices/locations"
    with told(f"{what} of {workspace.location}"):
        try:
            return workspace.arm("GET", f"{path}/{workspace.location}/{what}", API_VERSION)
        except HttpResponseError as error:
            if error.status_code != FORBIDDEN:
                raise
    say(f"{what} of {workspace.location}: you may not look (it takes the role Reader on the subscription); not checked")
    return None
