"""The nodes of clusters: a job holds one while it runs, and the next one waits until there is one.

with nodes.of(rehearsal).one(compute_id, cancelled) as granted: ...
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from devtools.rehearsal.computes import nodes as clusters
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Seconds between two looks at whether somebody cancelled, or resized the cluster.
PERIOD = 0.5
_NODES: dict[int, Nodes] = {}


class Nodes:
    """Who holds how many nodes of which cluster."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self._held: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def one(self, compute: str, cancelled: threading.Event) -> Iterator[bool]:
        """Wait for a node of a cluster and hold it; whether there was one before somebody cancelled.

        Raises:
            WireError: there is no such cluster any more.
        """
        name = compute.rpartition("/")[2].lower()
        with self._changed:
            while not cancelled.is_set() and self._held[name] >= self._most(name):
                self._changed.wait(PERIOD)
            granted = not cancelled.is_set()
            self._held[name] += granted
        try:
            yield granted
        finally:
            with self._changed:
                self._held[name] -= granted
                self._changed.notify_all()

    def _most(self, name: str) -> int:
        cluster = self._rehearsal.store.get("computes", name)
        if cluster is None:
            raise WireError(400, "ComputeNotFound", f"Compute with name {name} could not be found: it was deleted.")
        return cluster["properties"]["properties"]["scaleSettings"]["maxNodeCount"]


def of(rehearsal: Rehearsal) -> Nodes:
    """The nodes of an emulator's clusters."""
    return _NODES.setdefault(id(rehearsal), Nodes(rehearsal))


def is_low_priority(rehearsal: Rehearsal, compute: str) -> bool:
    """Whether the nodes of a cluster may be taken away."""
    cluster = rehearsal.store.get("computes", compute.rpartition("/")[2])
    return cluster is not None and clusters.is_low_priority(cluster)
