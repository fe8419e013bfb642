"""One job from the queue to its end: a node, its image, its files, the command, its log and outputs as they come.

Execution(rehearsal, "job-1").begin()

What takes a node away (preemption, loss) comes once the storage has a checkpoint, so that there is something to go on
from; of a job that writes none, after NO_CHECKPOINT seconds.
"""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.rehearsal.assets import addresses
from devtools.rehearsal.building import have, image_of
from devtools.rehearsal.jobs import nodes, plan, surroundings
from devtools.rehearsal.jobs.outputs import Outputs
from devtools.rehearsal.jobs.plan import Place, Plan
from devtools.rehearsal.resources import now
from devtools.rehearsal.runner import Mount, Started
from devtools.rehearsal.tracking import runs
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

KIND = "jobs"
LOG = "user_logs/std_log.txt"
#: Seconds between two looks at outputs and refusals, that a command has to end in, and of a job without checkpoints.
PERIOD, GRACE, NO_CHECKPOINT = 0.5, 60.0, 5.0
ENDED = ("Completed", "Failed", "Canceled")
FAILS = "echo 'the rehearsal lets this job fail' >&2; exit 1"


class NodeTaken(Exception):
    """A low-priority node was taken away; the job is queued again."""


class Execution:
    """One job that runs, or waits to."""

    def __init__(self, rehearsal: Rehearsal, name: str) -> None:
        self._rehearsal = rehearsal
        self._name = name
        self._folder = rehearsal.home / "jobs" / name
        self._cancelled = threading.Event()
        self._closing = False
        self._started: Started | None = None
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
        if self._started:
            self._started.kill()
        self._thread.join(GRACE)

    def _run(self) -> None:
        error: dict[str, Any] | None = None
        try:
            state = self._on_nodes()
        except WireError as refused:
            state, error = "Failed", refused.answer().body["error"]
            self._log(f"{refused.message}\n".encode())
        except Exception as broken:
            traceback.print_exc()
            state, error = "Failed", {"code": "ServiceError", "message": repr(broken)}
        if self._closing:
            return
        runs.end(self._rehearsal, self._name, state)
        self.become(state, error)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _on_nodes(self) -> str:
        """Run on one node after the other, while they are taken away; the job's last state."""
        while True:
            self.become("Queued")
            with nodes.of(self._rehearsal).one(self._properties()["computeId"], self._cancelled) as granted:
                if not granted:
                    return "Canceled"
                try:
                    return self._on_node()
                except NodeTaken:
                    self._log(b"\nthe node was preempted; the job is queued again\n")

    def _on_node(self) -> str:
        self.become("Preparing")
        if (slow := self._rehearsal.refusals.take("slow")) and self._cancelled.wait(slow["seconds"]):
            return "Canceled"
        planned = plan.read(self._rehearsal, self._name, self._properties())
        image = image_of(planned.environment)
        if self._rehearsal.refusals.take("image-pull"):
            raise WireError(400, "ImagePullFailed", f"Failed to pull Docker image {image}: manifest unknown")
        have(self._rehearsal, planned.environment)
        # a node of its own: nothing is there but what the storage has
        shutil.rmtree(self._folder, ignore_errors=True)
        outputs = Outputs(self._rehearsal, planned.outputs, self._folder / "outputs")
        outputs.fetch()
        mounts = [*self._bring(planned), *outputs.mounts, surroundings.trust(self._rehearsal.home)]
        if self._cancelled.is_set():
            return "Canceled"
        command = FAILS if self._rehearsal.refusals.take("job-fails") else planned.command
        around = surroundings.variables(self._rehearsal, self._name, self._properties())
        self._started = self._rehearsal.runner.start(
            self._name,
            image=image,
            command=["bash", "-c", command],
            environment=around | dict(planned.variables),
            mounts=mounts,
            workdir=planned.workdir,
            network_host=True,
        )
        self.become("Running")
        return self._watch(self._started, outputs, planned.timeout)

    def _watch(self, started: Started, outputs: Outputs, timeout: float | None) -> str:
        """Follow the command to its end; the job's last state."""
        ended = threading.Event()
        codes: list[int] = []

        def wait() -> None:
            codes.append(started.wait())
            ended.set()

        def read() -> None:
            for piece in started.output():
                self._log(piece)

        threads = [threading.Thread(target=target, daemon=True) for target in (wait, read)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        while not ended.wait(PERIOD):
            try:
                outputs.push()
                self._lose_node(started, outputs, begun)
            except (WireError, NodeTaken):
                started.kill()
                threads[1].join(GRACE)
                raise
            late = timeout is not None and time.monotonic() - begun > timeout
            if self._cancelled.is_set() or late:
                started.stop(GRACE)
                if late:
                    self._log(f"the job took longer than its limit of {timeout:.0f} s\n".encode())
                break
        ended.wait(GRACE)
        threads[1].join(GRACE)
        if self._closing:
            return "Canceled"
        self.become("Finalizing")
        outputs.push()
        if self._cancelled.is_set() or not codes or (timeout is not None and time.monotonic() - begun > timeout):
            return "Canceled"
        if codes[0]:
            raise WireError(
                400,
                "UserError",
                f"Execution failed. User process 'bash' exited with status code {codes[0]}. Please check log file "
                f"'{LOG}' for error details.",
            )
        return "Completed"

    def _lose_node(self, started: Started, outputs: Outputs, begun: float) -> None:
        """Take the node away, if that was switched on and it is time."""
        if not outputs.has_checkpoint and time.monotonic() - begun < NO_CHECKPOINT:
            return
        refusals = self._rehearsal.refusals
        if nodes.is_low_priority(self._rehearsal, self._properties()["computeId"]) and refusals.take("preempt"):
            started.stop(GRACE)
            outputs.push()
            raise NodeTaken
        if refusals.take("node-loss"):
            started.kill()
            raise WireError(
                400,
                "NodeLost",
                "The node that the job ran on was lost (NodeLost): it became unusable and the job's process ended.",
            )

    def _bring(self, planned: Plan) -> list[Mount]:
        """Code and inputs, from the storage to the node."""
        mounts = []
        if planned.code:
            folder = self._folder / "wd"
            folder.mkdir(parents=True)
            self._rehearsal.blobs.download_all(planned.code.container, _below(planned.code.path), folder)
            mounts.append(Mount(folder, planned.code.target))
        for place in planned.inputs:
            mounts.append(Mount(self._fetched(place), place.target, read_only=True))
        return mounts

    def _fetched(self, place: Place) -> Path:
        folder = self._folder / "inputs" / place.name
        folder.mkdir(parents=True, exist_ok=True)
        blobs = self._rehearsal.blobs
        if place.is_file:
            file = folder / place.path.rpartition("/")[2]
            try:
                file.write_bytes(blobs.download(place.container, place.path))
            except FileNotFoundError as error:
                raise WireError(404, "DataAccessError", f"The input {place.name} was not found: {error}") from error
            return file
        if not blobs.download_all(place.container, _below(place.path), folder):
            raise WireError(404, "DataAccessError", f"The input {place.name} was not found: {place.path}")
        return folder

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

    def _log(self, piece: bytes) -> None:
        place = addresses.blob(self._rehearsal, addresses.artifacts(self._name, LOG))
        assert place
        self._rehearsal.blobs.append(*place, piece)


def _below(path: str) -> str:
    """A prefix that means what lies in a folder; the container itself where there is no path."""
    return f"{path}/" if path else ""
