"""One revision of a deployment: its containers, and the requests that are let through to them.

replicas.begin()
replicas.wait_ready(stop)               # raises WireError: why it will not be
with replicas.admit() as address: ...   # a request; raises Refused
replicas.retire()                       # takes no more, waits for those in flight, ends the containers
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from devtools.rehearsal.endpoints import instance as instances
from devtools.rehearsal.endpoints import wording
from devtools.rehearsal.endpoints.instance import Instance
from devtools.rehearsal.endpoints.journal import Journal
from devtools.rehearsal.endpoints.plan import Plan
from devtools.rehearsal.runner import Started

#: Requests that are let through at once, for each that the deployment says an instance takes: half of them wait there.
QUEUED = 2
#: What an operation that was given up has failed with.
CANCELLED = "OperationCanceled"


class Refused(Exception):
    """A request that is not let through; `reason` says why."""

    BUSY, NOT_READY, RETIRED = "busy", "not ready", "retired"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Replicas:
    """The containers of one revision."""

    def __init__(
        self, name: str, plan: Plan, start: Callable[[str], Started], journal: Journal, probe_refused: bool = False
    ) -> None:
        """
        Args:
            start: starts one container of the given name.
            probe_refused: the emulator was told to have the readiness probe fail.
        """
        self.plan = plan
        self._change = threading.Condition()
        self._instances = [
            Instance(f"{name}-{number}", plan, start, journal, self._notice, probe_refused)
            for number in range(plan.instances)
        ]
        self._in_flight = dict.fromkeys(self._instances, 0)
        self._retired = False
        self._first: Future[None] = Future()

    def begin(self) -> None:
        """Start them; returns at once."""
        for one in self._instances:
            one.begin()

    @property
    def first_ready(self) -> Future[None]:
        """Done once one of them is ready, or none will be."""
        return self._first

    def wait_ready(self, cancelled: threading.Event) -> None:
        """Wait until all of them are ready.

        Raises:
            WireError: one will not be, or `cancelled` is set (whoever sets it calls `wake`).
        """
        with self._change:
            self._change.wait_for(lambda: cancelled.is_set() or self._settled())
            failed = next((one for one in self._instances if one.state == instances.FAILED), None)
        if cancelled.is_set():
            raise wording.failed(CANCELLED, "Operation was canceled by another operation.")
        if failed:
            raise wording.failed("ResourceNotReady", f"User container has crashed or terminated: {failed.why}")

    def wake(self) -> None:
        """Have `wait_ready` look again."""
        with self._change:
            self._change.notify_all()

    def ready_count(self) -> int:
        """How many are ready."""
        return sum(one.state == instances.READY for one in self._instances)

    @contextmanager
    def admit(self, tried: frozenset[str] = frozenset()) -> Iterator[str]:
        """The address of a container for one request, which is in flight as long as the context lasts.

        Args:
            tried: addresses that were tried for this request already.

        Raises:
            Refused: there is none, or there are too many requests.
        """
        with self._change:
            chosen = self._choose(tried)
            self._in_flight[chosen] += 1
            address = chosen.address
        try:
            yield address
        finally:
            with self._change:
                self._in_flight[chosen] -= 1
                self._change.notify_all()

    def retire(self, patience: float | None = None, grace: float = instances.GRACE) -> None:
        """Take no more requests, wait until those in flight are answered, end the containers.

        Args:
            patience: seconds for those requests; None: as long as it takes.
            grace: seconds for the containers.
        """
        with self._change:
            self._retired = True
            self._change.wait_for(lambda: not any(self._in_flight.values()), patience)
        threads = [threading.Thread(target=one.stop, args=(grace,)) for one in self._instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._finish_first()

    def _choose(self, tried: frozenset[str]) -> Instance:
        if self._retired:
            raise Refused(Refused.RETIRED)
        ready = [one for one in self._instances if one.state == instances.READY and one.address not in tried]
        if not ready:
            raise Refused(Refused.NOT_READY)
        if sum(self._in_flight.values()) >= QUEUED * self.plan.concurrent * len(self._instances):
            raise Refused(Refused.BUSY)
        return min(ready, key=lambda one: self._in_flight[one])

    def _settled(self) -> bool:
        states = {one.state for one in self._instances}
        return instances.FAILED in states or states == {instances.READY}

    def _notice(self) -> None:
        with self._change:
            self._change.notify_all()
        if self.ready_count() or all(one.state in (instances.FAILED, instances.STOPPED) for one in self._instances):
            self._finish_first()

    def _finish_first(self) -> None:
        with self._change:
            if not self._first.done():
                self._first.set_result(None)
