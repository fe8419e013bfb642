"""One stay of a job on a node: image, files, the command, its log and outputs as they come, and what takes it away.

state = Stay(rehearsal, "job-1", log, cancelled, become).run()

What takes a node away (preemption, loss) comes once the storage has a checkpoint that this stay made, so that there is
something to go on from; of a job that writes none, after `--seconds`.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.rehearsal.building import have, image_of
from devtools.rehearsal.jobs import nodes, plan, surroundings
from devtools.rehearsal.jobs.log import USER, Log
from devtools.rehearsal.jobs.outputs import Outputs
from devtools.rehearsal.jobs.plan import Place, Plan
from devtools.rehearsal.runner import Mount, Started
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Seconds between two looks at outputs and refusals, and that a command has to end in.
PERIOD, GRACE = 0.5, 30.0
FAILS = "echo 'the rehearsal lets this job fail' >&2; exit 1"


class NodeTaken(Exception):
    """A low-priority node was taken away; the job is queued again."""


class Stay:
    """A job on one node."""

    def __init__(
        self,
        rehearsal: Rehearsal,
        name: str,
        properties: dict[str, Any],
        log: Log,
        cancelled: threading.Event,
        become: Callable[[str], None],
    ) -> None:
        """
        Args:
            properties: the job's.
            cancelled: somebody asked for its end.
            become: writes down how the job stands.
        """
        self._rehearsal, self._name, self._properties = rehearsal, name, properties
        self._log, self._cancelled, self._become = log, cancelled, become
        self._folder = rehearsal.home / "jobs" / name
        self._started: Started | None = None
        self._killed = False

    def run(self) -> str:
        """Run the job; its last state.

        Raises:
            NodeTaken: the node was taken away.
            WireError: the job failed; code and message say why.
        """
        try:
            return self._run()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """End the command at once; nothing is written any more."""
        self._killed = True
        if self._started:
            self._started.kill()

    def _run(self) -> str:
        self._become("Preparing")
        if slow := self._rehearsal.refusals.take("slow"):
            self._log.note(f"waiting {slow['seconds']:g} s for the node")
            self._cancelled.wait(slow["seconds"])
        planned = plan.read(self._rehearsal, self._name, self._properties)
        image = image_of(planned.environment)
        self._log.note(f"image: {image}")
        if self._rehearsal.refusals.take("image-pull"):
            raise WireError(400, "ImagePullFailed", f"Failed to pull Docker image {image}: manifest unknown")
        have(self._rehearsal, planned.environment)
        if planned.environment.get("condaFile"):
            self._log.note("the environment's conda file is not looked at: its packages are those of the image")
        # a node of its own: nothing is there but what the storage has
        shutil.rmtree(self._folder, ignore_errors=True)
        outputs = Outputs(self._rehearsal, planned.outputs, planned.artifacts, self._folder)
        mounts = self._bring(planned)
        outputs.fetch()
        if self._cancelled.is_set():
            return "Canceled"
        command = FAILS if self._rehearsal.refusals.take("job-fails") else planned.command
        self._log.note(f"command: {command}")
        self._started = self._rehearsal.runner.start(
            self._name,
            image=image,
            command=["bash", "-c", command],
            environment=surroundings.variables(self._rehearsal, self._name, self._properties) | dict(planned.variables),
            mounts=[*mounts, *outputs.mounts, surroundings.trust(self._rehearsal.home)],
            workdir=planned.workdir,
            network_host=True,
        )
        self._become("Running")
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
                self._log.say(piece)

        waiting, reading = (threading.Thread(target=target, daemon=True) for target in (wait, read))
        waiting.start()
        reading.start()
        begun, late = time.monotonic(), False
        try:
            while not ended.wait(PERIOD):
                self._log.flush()
                outputs.push()
                self._lose_node(started, outputs, begun)
                late = timeout is not None and time.monotonic() - begun > timeout
                if self._cancelled.is_set() or late:
                    self._log.note("the job is asked to end: " + ("its time is over" if late else "it is canceled"))
                    started.stop(GRACE)
                    break
        except BaseException:
            # whatever it was, nothing of a job that has an end goes on running
            started.kill()
            raise
        finally:
            ended.wait(GRACE)
            reading.join(GRACE)
            self._log.flush()
        if self._killed:
            return "Canceled"
        self._become("Finalizing")
        outputs.push(last=True)
        if late:
            self._log.say(f"the job took longer than its limit of {timeout:.0f} s\n".encode())
        self._log.note(f"the command ended with exit code {codes[0] if codes else 'unknown'}")
        if self._cancelled.is_set() or late or not codes:
            return "Canceled"
        if codes[0]:
            raise WireError(
                400,
                "UserError",
                f"Execution failed. User process 'bash' exited with status code {codes[0]}. Please check log file "
                f"'{USER}' for error details.",
            )
        return "Completed"

    def _lose_node(self, started: Started, outputs: Outputs, begun: float) -> None:
        """Take the node away, if that was switched on and it is time."""
        refusals = self._rehearsal.refusals
        cheap = nodes.is_low_priority(self._rehearsal, self._properties["computeId"])
        for name in ("preempt", "node-loss"):
            told = refusals.peek(name)
            if told is None or (name == "preempt" and not cheap):
                continue
            if not outputs.has_checkpoint and time.monotonic() - begun < told["seconds"]:
                continue
            if refusals.take(name) is None:
                continue
            if name == "preempt":
                started.stop(GRACE)
                outputs.push(last=True)
                raise NodeTaken
            started.kill()
            raise WireError(
                400,
                "NodeLost",
                "The node that the job ran on was lost (NodeLost): it became unusable and the job's process ended.",
            )

    def _bring(self, planned: Plan) -> list[Mount]:
        """Code and inputs, from the storage to the node."""
        folder = self._folder / "wd"
        folder.mkdir(parents=True)
        if planned.code:
            self._rehearsal.blobs.download_all(planned.code.container, _below(planned.code.path), folder)
        mounts = [Mount(folder, planned.workdir)]
        for place in planned.inputs:
            mounts.append(Mount(self._fetched(place), place.target, read_only=True))
            self._log.note(f"input {place.name}: {place.path}")
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


def _below(path: str) -> str:
    """A prefix that means what lies in a folder; the container itself where there is no path."""
    return f"{path}/" if path else ""
