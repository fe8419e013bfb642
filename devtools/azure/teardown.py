"""Everything that the kit made and that costs, deleted: the endpoint first, then the cluster; and what stays, said.

take_down(connect(Settings.load()), yes=True)

What the kit made carries its tag (devtools/azure/tags.py); nothing else is ever touched.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devtools.azure import endpoint, jobs, prices
from devtools.azure.confirm import confirm
from devtools.azure.refusals import told
from devtools.azure.submission import state_of
from devtools.azure.tags import is_ours
from devtools.azure.workspace import Workspace

if TYPE_CHECKING:
    from azure.ai.ml.entities import AmlCompute, Job, ManagedOnlineEndpoint

#: Kinds of things that stay: they keep their storage, a few cents a gigabyte and month.
STAYING = ("models", "environments", "data")


@dataclass(frozen=True)
class Made:
    """What the kit made here and that can cost."""

    endpoints: list[ManagedOnlineEndpoint] = field(default_factory=list)
    clusters: list[AmlCompute] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Each, for people."""
        return [
            *(f"endpoint {one.name}" for one in self.endpoints),
            *(f"job {one.name} ({state_of(one)})" for one in self.jobs),
            *(f"cluster {one.name}" for one in self.clusters),
        ]


def take_down(workspace: Workspace, *, yes: bool) -> None:
    """Delete what costs, after a question; what is gone already is no error."""
    made = find(workspace)
    if made.names:
        confirm(f"{', '.join(made.names)}: {_a_day(workspace, made)}; delete all of it?", yes)
        _delete(workspace, made)
    else:
        _say("there is nothing of the kit's that costs by the hour")
    for line in staying(workspace):
        print(line)


def find(workspace: Workspace) -> Made:
    """What there is."""
    client = workspace.client
    with told("what the kit made"):
        endpoints = [one for one in client.online_endpoints.list() if is_ours(one.tags)]
        clusters = [one for one in client.compute.list() if is_ours(one.tags)]
    return Made(endpoints, clusters, jobs.running(workspace))


def staying(workspace: Workspace) -> list[str]:
    """Lines about what is left, and what that costs."""
    lines = []
    with told("what stays"):
        for kind in STAYING:
            operations = getattr(workspace.client, kind)
            # (the lists of names carry no tags of their versions)
            names = sorted({one.name for one in operations.list() if one.name.startswith("phikit")})
            found = [f"{name} ({sum(1 for _ in operations.list(name))})" for name in names]
            if found:
                lines.append(f"stays: {kind} {', '.join(found)}")
    registry = workspace.linked("containerRegistry").rpartition("/")[2]
    if registry:
        lines.append(f"stays: images phikit-runtime in the registry {registry}")
    others = [one.name for one in find(workspace).endpoints]
    lines += [f"stays: endpoint {name}, which could not be deleted" for name in others]
    lines.append(
        "it costs storage alone, cents a day; the workspace's own registry, storage and key vault are what they were"
    )
    return lines


def _delete(workspace: Workspace, made: Made) -> None:
    client = workspace.client
    for one in made.endpoints:
        _say(f"endpoint {one.name}: deleting it")
        endpoint.remove(workspace, one.name)
    for one in made.jobs:
        _say(f"job {one.name}: canceling it")
        with told(f"job {one.name}"):
            client.jobs.begin_cancel(one.name).result()
    for one in made.clusters:
        _say(f"cluster {one.name}: deleting it")
        with told(f"cluster {one.name}"):
            client.compute.begin_delete(one.name).result()


def _a_day(workspace: Workspace, made: Made) -> str:
    """What the endpoints cost a day; clusters without a job cost nothing."""
    total, unknown = 0.0, False
    for one in made.endpoints:
        for found in endpoint.deployments(workspace, one.name).values():
            price = prices.hourly(found.instance_type, workspace.location)
            unknown |= price is None
            total += (price or 0) * (found.instance_count or 1)
    least = "at least " if unknown else ""
    return f"{least}{prices.a_day(total)} a day"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
