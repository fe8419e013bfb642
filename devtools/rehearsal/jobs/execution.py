"""A job from the queue to its end: nodes, one after the other while they are taken away, and what it leaves.

Execution(rehearsal, "job-1").begin()
"""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING, Any

from devtools.rehearsal import session
from devtools.rehearsal.jobs import nodes, products
from devtools.rehearsal.jobs.log import Log
from devtools.rehearsal.jobs.node import NodeTaken, Stay
from devtools.rehearsal.resources import now
from devtools.rehearsal.tracking import runs
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

KIND = "jobs"
ENDED = ("Completed", "Failed", "Canceled")
#: Seconds between two looks whether the emulator answers, and that one that ends waits for its jobs.
PERIOD, LAST = 0.1, 10.0


class Execution:
    """One job that runs, or waits to."""

    def __init__(self, rehearsal: Rehearsal, name: str) -> None:
        self._rehearsal = rehearsal
        self._name = name
        self._log = Log(rehearsal, name)
        self._cancelled = threading.Event()
        self._closing = False
        self._stay: Stay | None = None
        self._thread = threading.Thread(target=self._run, name=f"job {name}", daemon=True)

    def begin(self) -> None:
        """Start; returns at once."""
        self._thread.start()

    def cancel(self) -> None:
        """End it, as its owner asked."""
        self._cancelled.set()

    def close(self) -> None:
        """End it with the emulator: whoever looks later finds that its node was lost."""
        self._closing = True
        self._cancelled.set()
        if self._stay:
            self._stay.kill()

    def closed(self) -> None:
        """Wait until it is."""
        self._thread.join(LAST)

    def _run(self) -> None:
        error: dict[str, Any] | None = None
        try:
            state = self._on_nodes()
            if state == "Completed":
                products.register(self._rehearsal, self._name, self._properties())
        except WireError as refused:
            state, error = "Failed", refused.answer().body["error"]
            self._log.say(f"{refused.message}\n".encode())
        except Exception as broken:
            traceback.print_exc()
            state, error = "Failed", {"code": "ServiceError", "message": f"{type(broken).__name__}: {broken}"}
        if self._closing:
            return
        self._log.note(f"the job is {state}")
        runs.end(self._rehearsal, self._name, state)
        self.become(state, error)

    def _on_nodes(self) -> str:
        """Run on one node after the other, while they are taken away; the job's last state."""
        # (of an emulator that starts again: a job needs its services)
        while session.running(self._rehearsal.home) is None and not self._cancelled.wait(PERIOD):
            pass
        while True:
            self.become("Queued")
            compute = self._properties()["computeId"]
            with nodes.of(self._rehearsal).one(compute, self._cancelled) as granted:
                if not granted:
                    return "Canceled"
                self._stay = Stay(
                    self._rehearsal, self._name, self._properties(), self._log, self._cancelled, self.become
                )
                try:
                    return self._stay.run()
                except NodeTaken:
                    self._log.note("the node was preempted; the job is queued again")
                    self._log.say(b"\nthe node was preempted; the job is queued again\n")

    def _properties(self) -> dict[str, Any]:
        return (self._rehearsal.store.get(KIND, self._name) or {"properties": {}})["properties"]

    def become(self, state: str, error: dict[str, Any] | None = None) -> None:
        """Write down how the job stands."""

        def change(document: dict[str, Any]) -> None:
            times = document.setdefault("_", {}).setdefault("times", {})
            times.setdefault(state, now())
            if error:
                document["_"]["error"] = error
            if document["properties"]["status"] not in ENDED:
                cancelling = document["properties"]["status"] == "CancelRequested" and state not in ENDED
                document["properties"]["status"] = "CancelRequested" if cancelling else state

        self._rehearsal.store.change(KIND, self._name, change)
