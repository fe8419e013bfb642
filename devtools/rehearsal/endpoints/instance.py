"""One container of a deployment, kept alive: started, probed, and started again when it dies or is found dead.

    instance = Instance("phikit-blue-0", plan, start, journal, changed)
    instance.begin()
    instance.state          # "starting", "ready", "failed", ...

Probes are Kubernetes' ones: a route is asked every `period` after `initial_delay`, an answer of 200 to 399 within
`timeout` is a success, `failure_threshold` failures one after the other count.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from devtools.rehearsal.endpoints.journal import DONE, GOING_ON, Journal
from devtools.rehearsal.endpoints.plan import Plan, Probe
from devtools.rehearsal.runner import Started
from devtools.rehearsal.wire import WireError

STARTING, READY, UNREADY, FAILED, STOPPED = "starting", "ready", "unready", "failed", "stopped"
#: Starts without having been ready once, after which it is given up.
STARTS = 3
#: Seconds before it is started again: the first, doubled each time, the longest; and a life that counts as a good one.
BACKOFF, LONGEST_BACKOFF, GOOD_LIFE = 1.0, 60.0, 600.0
#: Seconds that a container gets to end, as Kubernetes gives them.
GRACE = 30.0


@dataclass
class Counted:
    """One probe of one container: when it is due, and how it went."""

    name: str
    probe: Probe
    due: float
    successes: int = 0
    failures: int = 0
    last: str = field(default="")
    """What was wrong the last time."""

    def note(self, problem: str | None) -> None:
        """Count one answer; None: a good one."""
        self.successes, self.failures = (self.successes + 1, 0) if problem is None else (0, self.failures + 1)
        self.last = problem or ""
        self.due = time.monotonic() + self.probe.period


class Instance:
    """A container and its successors."""

    def __init__(
        self,
        name: str,
        plan: Plan,
        start: Callable[[str], Started],
        journal: Journal,
        changed: Callable[[], None],
        refused: bool = False,
    ) -> None:
        """
        Args:
            start: starts one container of the given name.
            changed: called, in the instance's own thread, whenever `state` is another.
            refused: its first readiness probe is taken for the last that may fail.
        """
        self.state = STARTING
        self.why = ""
        """Why it failed, for people."""
        self.address = ""
        self._name, self._plan, self._start, self._journal = name, plan, start, journal
        self._changed, self._refused = changed, refused
        self._wake = threading.Condition()
        self._stopping, self._grace = False, GRACE
        self._ended = False
        self._been_ready = False
        self._started: Started | None = None
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def begin(self) -> None:
        """Start the first container; returns at once."""
        self._thread.start()

    def stop(self, grace: float = GRACE) -> None:
        """End it for good; it is gone afterwards."""
        with self._wake:
            self._stopping, self._grace = True, grace
            self._wake.notify_all()
        if self._started:
            self._started.stop(grace)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._become(STOPPED)

    def _live(self) -> None:
        try:
            self._keep_alive()
        except Exception as error:
            # a container that nobody watches is none: the deployment is to say so, not to wait for ever
            traceback.print_exc()
            if self._started:
                with contextlib.suppress(Exception):
                    self._started.kill()
            self._fail(f"{type(error).__name__}: {error}")

    def _keep_alive(self) -> None:
        starts, delay = 0, BACKOFF
        while not self._stopping:
            starts += 1
            begun = time.monotonic()
            problem = self._one_life(f"{self._name}-{starts}")
            if self._stopping or self.state == FAILED:
                return
            delay = BACKOFF if time.monotonic() - begun > GOOD_LIFE else delay
            if not self._been_ready and starts >= STARTS:
                self._fail(problem)
                return
            self._become(UNREADY if self._been_ready else STARTING)
            self._journal.event("BackOff", f"Back-off {delay:.0f}s restarting failed container", warning=True)
            self._pause(delay)
            delay = min(delay * 2, LONGEST_BACKOFF)

    def _one_life(self, name: str) -> str:
        """One container from its start to its end; what ended it."""
        self._journal.step("UserContainerStart", GOING_ON)
        try:
            started = self._start(name)
        except WireError as error:
            self._journal.event("Failed", f"Error: {error.message}", warning=True)
            return error.message
        with self._wake:
            self._started, self._ended = started, False
        if self._stopping:
            started.stop(self._grace)
            return ""
        self.address = started.address or ""
        self._journal.event("Created", "Created container inference-server")
        self._journal.event("Started", "Started container inference-server")
        reader = threading.Thread(target=self._read, args=(started,), name=f"{name}-output", daemon=True)
        reader.start()
        problem = self._probe(started)
        if self.state == READY:
            self._become(UNREADY)
        if started.is_alive():
            started.stop(self._grace)
        code = started.wait()
        reader.join()
        if not problem and not self._stopping:
            problem = f"The container ended with exit code {code}."
            self._journal.event("Terminated", problem, warning=True)
        return problem

    def _read(self, started: Started) -> None:
        for piece in started.output():
            self._journal.output(piece)
        started.wait()
        with self._wake:
            self._ended = True
            self._wake.notify_all()

    def _probe(self, started: Started) -> str:
        """Ask the routes as long as the container is to live; why it is not to, or nothing."""
        begun = time.monotonic()
        liveness = Counted("Liveness", self._plan.liveness, begun + self._plan.liveness.initial_delay)
        readiness = Counted("Readiness", self._plan.readiness, begun + self._plan.readiness.initial_delay)
        with httpx.Client(trust_env=False) as client:
            while not self._stopping and not self._ended:
                due = min(liveness, readiness, key=lambda one: one.due)
                if not self._pause(due.due - time.monotonic()):
                    continue
                due.note(self._ask(client, due.probe))
                if due.failures:
                    self._journal.event(f"{due.name}ProbeFailed", f"{due.name} probe failed: {due.last}", warning=True)
                if due is liveness and due.failures >= due.probe.failure_threshold:
                    return f"Liveness probe failed: {due.last}"
                self._judge(readiness)
                if self.state == FAILED:
                    return self.why
        return ""

    def _judge(self, readiness: Counted) -> None:
        threshold = 1 if self._refused else readiness.probe.failure_threshold
        if readiness.successes >= readiness.probe.success_threshold and self.state != READY:
            self._been_ready = True
            self._journal.step("UserContainerStart", DONE)
            self._journal.event("ContainerReady", "Container is ready")
            self._become(READY)
        elif readiness.failures >= threshold and self.state == READY:
            self._become(UNREADY)
        elif readiness.failures >= threshold and not self._been_ready:
            self._fail(f"Readiness probe failed: {readiness.last}")

    def _ask(self, client: httpx.Client, probe: Probe) -> str | None:
        """What is wrong with a route, in Kubernetes' words; None: nothing."""
        if self._refused and probe is self._plan.readiness:
            return "HTTP probe failed with statuscode: 503"
        address = f"http://{self.address}{probe.path}"
        try:
            status = client.get(address, timeout=probe.timeout).status_code
        except httpx.TimeoutException:
            return f'Get "{address}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        except httpx.HTTPError as error:
            return f'Get "{address}": {error or type(error).__name__}'
        return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"

    def _pause(self, seconds: float) -> bool:
        """Wait; False when the container ended, or is to be stopped, in the meantime."""
        with self._wake:
            return not self._wake.wait_for(lambda: self._stopping or self._ended, max(0.0, seconds))

    def _fail(self, why: str) -> None:
        self.why = why
        self._become(FAILED)

    def _become(self, state: str) -> None:
        if self.state != state and self.state != STOPPED:
            self.state = state
            self._changed()
