"""Everything that the kit made and that costs by the hour, deleted: the endpoint first, then the cluster.

take_down(connect(Settings.load()), yes=True, everything=False)

What the kit made carries its tag (devtools/azure/tags.py); nothing else is ever touched. What is gone already is no
error, so that it can be given again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from devtools.azure import cost, endpoint, jobs, lock, submission
from devtools.azure.confirm import confirm
from devtools.azure.progress import finished, say
from devtools.azure.refusals import is_missing, told
from devtools.azure.submission import state_of
from devtools.azure.tags import is_ours
from devtools.azure.workspace import Workspace
from devtools.errors import KitError

if TYPE_CHECKING:
    from azure.ai.ml.entities import AmlCompute, Asset, Job, ManagedOnlineEndpoint

#: What is done, the word for it, and how.
Step = tuple[str, str, Callable[[], object]]


@dataclass(frozen=True)
class Made:
    """What the kit made here and that can cost by the hour."""

    endpoints: list[ManagedOnlineEndpoint] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    clusters: list[AmlCompute] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Each, for people."""
        return [
            *(f"endpoint {one.name}" for one in self.endpoints),
            *(f"job {one.name} ({state_of(one)}: it is canceled)" for one in self.jobs),
            *(f"cluster {one.name}" for one in self.clusters),
        ]


def take_down(workspace: Workspace, *, yes: bool, everything: bool) -> None:
    """Delete what costs, after a question, and print what stays.

    Args:
        everything: the kit's models, environments and data are archived too.

    Raises:
        KitError: a roll-out goes on; or something could not be deleted, after all else was: it goes on costing.
    """
    made = find(workspace)
    assets = {kind: cost.assets(workspace, kind) for kind in cost.KINDS} if everything else {}
    for one in made.endpoints:
        lock.refuse_held(workspace, one.name)
    count = sum(map(len, assets.values()))
    what = made.names + ([f"{count} models, environments and data (archived)"] if count else [])
    failures: list[str] = []
    if what:
        confirm(f"{', '.join(what)}: {_a_day(workspace, made)}; delete it?", yes)
    else:
        say("there is nothing of the kit's that costs by the hour")
    for name, doing, work in _steps(workspace, made, assets):
        say(f"{name}: {doing} it")
        try:
            with told(name):
                work()
        except KitError as error:
            # (what else there is still goes)
            failures.append(str(error))
    try:
        for line in cost.remaining(workspace):
            print(line, flush=True)
    except KitError as error:
        failures.append(f"what stays cannot be looked at: {error}")
    if failures:
        raise KitError("; ".join(failures))


def _a_day(workspace: Workspace, made: Made) -> str:
    """What it costs; that nobody can tell is no reason to let it go on."""
    try:
        return cost.a_day(workspace, made.endpoints, made.clusters)
    except KitError:
        return "at a cost that cannot be looked at now"


def find(workspace: Workspace) -> Made:
    """What there is."""
    client = workspace.client
    with told("what the kit made"):
        endpoints = [one for one in client.online_endpoints.list() if is_ours(one.tags)]
        clusters = [one for one in client.compute.list() if is_ours(one.tags)]
    return Made(endpoints, jobs.running(workspace), clusters)


def _steps(workspace: Workspace, made: Made, assets: dict[str, list[Asset]]) -> Iterator[Step]:
    """What is to be done, in its order: what costs the most first."""
    for one in made.endpoints:
        yield f"endpoint {one.name}", "deleting", partial(_remove_endpoint, workspace, one.name)
    for job in made.jobs:
        yield f"job {job.name}", "canceling", partial(_cancel, workspace, str(job.name))
    for cluster in made.clusters:
        yield f"cluster {cluster.name}", "deleting", partial(_remove_cluster, workspace, cluster.name)
    for kind, found in assets.items():
        archive = getattr(workspace.client, kind).archive
        for one in found:
            yield f"{kind} {one.name}:{one.version}", "archiving", partial(archive, one.name, one.version)


def _remove_endpoint(workspace: Workspace, name: str) -> None:
    with lock.held(workspace, name):
        endpoint.remove(workspace, name)


def _cancel(workspace: Workspace, name: str) -> None:
    finished(lambda: workspace.client.jobs.begin_cancel(name), f"job {name}")
    # (its cluster goes next: that it is over is waited for)
    while (job := submission.find(workspace, name)) and state_of(job) not in submission.ENDED:
        threading.Event().wait(endpoint.PERIOD)


def _remove_cluster(workspace: Workspace, name: str) -> None:
    from azure.core.exceptions import AzureError

    try:
        finished(lambda: workspace.client.compute.begin_delete(name), f"cluster {name}")
    except AzureError as error:
        if not is_missing(error):
            raise
