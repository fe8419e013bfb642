"""What the nodes of a cluster do, told by the jobs that are on it: there are no machines, so nothing else is kept.

nodes.counts(store, cluster)       # for the cluster's document
nodes.cores_in_use(store)          # for the quota
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

from devtools.rehearsal import sizes
from devtools.rehearsal.store import Document, Store

#: States of a job in which it holds nodes, and what its nodes are then.
_HOLDING = {
    "Provisioning": "preparing",
    "Preparing": "preparing",
    "Starting": "preparing",
    "Running": "running",
    "Finalizing": "running",
    "CancelRequested": "leaving",
    "Canceling": "leaving",
}


@dataclass(frozen=True)
class Node:
    """One node of a cluster."""

    state: str
    """As Azure names it: preparing, running, leaving, idle."""
    job: str | None


def listing(store: Store, cluster: Document) -> list[Node]:
    """The cluster's nodes: those that jobs hold, up to its greatest size, then idle ones up to its smallest."""
    scale = cluster["properties"]["properties"]["scaleSettings"]
    found: list[Node] = []
    for key, job in store.all("jobs"):
        told = job.get("properties", {})
        state = _HOLDING.get(told.get("status", ""))
        if state and _is_on(told, cluster["name"]):
            count = (told.get("resources") or {}).get("instanceCount") or 1
            found += [Node(state, key)] * count
    found = found[: scale["maxNodeCount"]]
    return found + [Node("idle", None)] * (scale["minNodeCount"] - len(found))


def counts(store: Store, cluster: Document) -> dict[str, Any]:
    """The fields of a cluster's document that change as its jobs do."""
    states = Counter(node.state for node in listing(store, cluster))
    total = sum(states.values())
    return {
        "currentNodeCount": total,
        "targetNodeCount": total - states["leaving"],
        "allocationState": "Resizing" if states["preparing"] or states["leaving"] else "Steady",
        "nodeStateCounts": {
            "idleNodeCount": states["idle"],
            "runningNodeCount": states["running"],
            "preparingNodeCount": states["preparing"],
            "unusableNodeCount": 0,
            "leavingNodeCount": states["leaving"],
            "preemptedNodeCount": 0,
        },
    }


def describe(store: Store, cluster: Document) -> list[dict[str, Any]]:
    """The nodes as clients list them; names and addresses are made up, always the same."""
    answer = []
    for number, node in enumerate(listing(store, cluster)):
        name = hashlib.sha256(f"{cluster['name']}/{number}".encode()).hexdigest()[:32]
        answer.append(
            {
                "nodeId": f"tvmps_{name}_{'p' if is_low_priority(cluster) else 'd'}",
                "privateIpAddress": f"10.0.0.{number + 4}",
                "publicIpAddress": None,
                "port": 50000 + number,
                "nodeState": node.state,
                "runId": node.job,
            }
        )
    return answer


def cores_in_use(store: Store) -> Counter[tuple[str, bool]]:
    """Cores of all clusters' nodes, by the family's name and whether they are low-priority ones."""
    used: Counter[tuple[str, bool]] = Counter()
    for _, cluster in store.all("computes"):
        size = sizes.find(cluster["properties"]["properties"]["vmSize"])
        if size and cluster["properties"]["provisioningState"] != "Failed":
            used[size.family.name, is_low_priority(cluster)] += size.cores * len(listing(store, cluster))
    return used


def is_low_priority(cluster: Document) -> bool:
    """Whether the cluster's nodes may be taken away."""
    return cluster["properties"]["properties"]["vmPriority"] == "LowPriority"


def _is_on(job: dict[str, Any], cluster: str) -> bool:
    return str(job.get("computeId") or "").rsplit("/", 1)[-1].lower() == cluster.lower()
