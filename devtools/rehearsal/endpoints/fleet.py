"""All deployments that run: started, replaced while the old one goes on answering, drained and ended.

fleet = fleet_of(rehearsal)
fleet.roll_out("phikit", "blue", document)     # returns once it answers; raises WireError when it never will
fleet.serving("phikit", "blue")                # its containers, for requests
"""

from __future__ import annotations

import shutil
import threading
import uuid
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.rehearsal.building import have
from devtools.rehearsal.endpoints import files, permissions, plan, wording
from devtools.rehearsal.endpoints.counters import Counters
from devtools.rehearsal.endpoints.journal import DONE, GOING_ON, Journal
from devtools.rehearsal.endpoints.replicas import Replicas
from devtools.rehearsal.runner import Started
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import WireError
from devtools.settings import ROOT

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

FOLDER = "deployments"
#: Seconds beside its request timeout that the last requests of a deployment have.
DRAIN = 10.0
#: What the kit's own image does by itself, for a runner that has no images.
OWN_COMMAND = ["bash", str(ROOT / "docker" / "serve.sh")]
#: Seconds that containers get to end when the emulator itself goes.
SHORT_GRACE = 3.0
#: Seconds for roll-outs that are given up then.
LAST_WORDS = 10.0
_FLEETS: dict[Path, Fleet] = {}
_FLEETS_LOCK = threading.Lock()


def fleet_of(rehearsal: Rehearsal) -> Fleet:
    """The one fleet of an emulator."""
    with _FLEETS_LOCK:
        if rehearsal.home not in _FLEETS:
            _FLEETS[rehearsal.home] = Fleet(rehearsal)
        return _FLEETS[rehearsal.home]


@dataclass
class Coming:
    """A revision on its way."""

    again: bool = False
    """It was there before the emulator was restarted: requests wait for it."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    replicas: Replicas | None = None
    first_ready: Future[None] = field(default_factory=Future)
    """Done once one of its containers is ready, or it is over."""

    def cancel(self) -> None:
        """Have it given up."""
        self.cancelled.set()
        if self.replicas:
            self.replicas.wake()

    def answer(self, _: object = None) -> None:
        """Let those go on who wait for it."""
        with suppress(InvalidStateError):
            self.first_ready.set_result(None)


class Fleet:
    """The containers of all deployments, by endpoint and deployment."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.counters = Counters()
        self._rehearsal = rehearsal
        self._lock = threading.Lock()
        self._serving: dict[str, Replicas] = {}
        self._coming: dict[str, Coming] = {}
        self._journals: dict[str, Journal] = {}

    def serving(self, endpoint: str, deployment: str) -> Replicas | None:
        """The revision that gets a deployment's requests; None where none was ever ready."""
        key = _key(endpoint, deployment)
        with self._lock:
            return self._serving.get(key)

    def starting_again(self, endpoint: str, deployment: str) -> Coming | None:
        """What is on its way to be as it was before the emulator was restarted."""
        with self._lock:
            coming = self._coming.get(_key(endpoint, deployment))
        return coming if coming and coming.again else None

    def expect(self, endpoint: str, deployment: str, again: bool = True) -> Coming:
        """Say that a deployment will be rolled out, once what is on its way is over.

        Args:
            again: as it was before the emulator was restarted: requests that come from now on wait for it.
        """
        while True:
            with self._lock:
                there = self._coming.get(_key(endpoint, deployment))
                if there is None:
                    there = self._coming[_key(endpoint, deployment)] = Coming(again)
                    return there
            there.over.wait()

    def journal(self, endpoint: str, deployment: str) -> Journal:
        """What can be read of a deployment's containers."""
        key = _key(endpoint, deployment)
        with self._lock:
            if key not in self._journals:
                self._journals[key] = Journal(self._folder(endpoint, deployment))
            return self._journals[key]

    def roll_out(
        self,
        endpoint: str,
        deployment: str,
        document: Document,
        revision: str | None = None,
        coming: Coming | None = None,
    ) -> str:
        """Start a revision; once it is ready it takes the place of the one before, which then ends.

        Args:
            revision: the one that it was before the emulator was restarted; what was downloaded for it is used again.
            coming: what `expect` gave.

        Returns the revision's name.

        Raises:
            WireError: it will never be ready; the one before goes on.
        """
        coming = coming or self.expect(endpoint, deployment, again=False)
        revision, key = revision or uuid.uuid4().hex[:8], _key(endpoint, deployment)
        place = self._folder(endpoint, deployment) / revision
        try:
            coming.replicas = self._prepare(endpoint, deployment, document, place, coming.cancelled)
            coming.replicas.first_ready.add_done_callback(coming.answer)
            # (cancelled while its image was pulled: nothing of it is started)
            if not coming.cancelled.is_set():
                coming.replicas.begin()
            coming.replicas.wait_ready(coming.cancelled)
            with self._lock:
                before = self._serving.get(key)
                self._serving[key] = coming.replicas
        except BaseException:
            if coming.replicas:
                coming.replicas.retire(0)
            shutil.rmtree(place, ignore_errors=True)
            raise
        finally:
            with self._lock:
                self._coming.pop(key, None)
            coming.over.set()
            coming.answer()
        if before:
            before.retire(before.plan.timeout + DRAIN)
        self._sweep(endpoint, deployment, keep=revision)
        return revision

    def remove(self, endpoint: str, deployment: str) -> None:
        """End a deployment: what comes is cancelled, what serves takes no more requests, answers its last and goes."""
        key = _key(endpoint, deployment)
        with self._lock:
            coming = self._coming.get(key)
        if coming:
            coming.cancel()
            coming.over.wait()
        with self._lock:
            serving = self._serving.pop(key, None)
        if serving:
            serving.retire(serving.plan.timeout + DRAIN)
        with self._lock:
            self._journals.pop(key, None)
        shutil.rmtree(self._folder(endpoint, deployment), ignore_errors=True)

    def end(self) -> None:
        """End all of them, at once: the emulator goes."""
        with self._lock:
            coming, serving = list(self._coming.values()), list(self._serving.values())
            self._serving.clear()
        for one in coming:
            one.cancel()
        threads = [threading.Thread(target=replicas.retire, args=(0, SHORT_GRACE)) for replicas in serving]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in coming:
            one.over.wait(LAST_WORDS)
        with _FLEETS_LOCK:
            _FLEETS.pop(self._rehearsal.home, None)

    def _prepare(
        self,
        endpoint: str,
        deployment: str,
        document: Document,
        place: Path,
        cancelled: threading.Event,
    ) -> Replicas:
        """Everything that comes before the first container."""
        rehearsal, journal = self._rehearsal, self.journal(endpoint, deployment)
        found = plan.read(rehearsal, document)
        journal.begin()
        journal.step("SystemSetup", GOING_ON)
        if told := rehearsal.refusals.take("slow"):
            cancelled.wait(float(told["seconds"]))
        journal.step("SystemSetup", DONE)
        permissions.check(rehearsal, endpoint, found)
        self._pull(found, journal)
        mounts = files.bring(rehearsal, found, place, journal)
        environment = dict(found.environment)
        alone = rehearsal.runner.kind == "process"
        if alone:
            # a process has no network of its own: what listens everywhere there would listen to everybody here
            environment = {name: "127.0.0.1" if value == "0.0.0.0" else value for name, value in environment.items()}

        def start(name: str) -> Started:
            return rehearsal.runner.start(
                name,
                image=found.image,
                command=OWN_COMMAND if alone else None,
                environment=environment,
                mounts=mounts,
                port=found.port,
            )

        name = f"{endpoint}-{deployment}-{place.name}"
        return Replicas(name, found, start, journal, probe_refused=rehearsal.refusals.take("probe") is not None)

    def _pull(self, found: plan.Plan, journal: Journal) -> None:
        image = found.image
        journal.step("UserContainerImagePull", GOING_ON)
        journal.event("Pulling", "Start pulling container image")
        try:
            if self._rehearsal.refusals.take("image-pull"):
                raise WireError(400, "ImagePullFailed", f"manifest of {image} unknown")
            have(self._rehearsal, found.source)
        except WireError as error:
            journal.event("ImagePullFailed", f"Image pull failed: {error.message}", warning=True)
            if error.code == "ImageBuildFailure":
                raise wording.failed(error.code, error.message) from error
            message = f"Unable to download user container image {image}: {error.message}."
            raise wording.failed("BadArgument", message, "unable-to-download-user-container-image") from error
        journal.step("UserContainerImagePull", DONE)
        journal.event("Pulled", "Container image is pulled successfully")

    def _sweep(self, endpoint: str, deployment: str, keep: str) -> None:
        """Remove what was downloaded for revisions that are gone."""
        for place in self._folder(endpoint, deployment).iterdir():
            if place.is_dir() and place.name != keep:
                shutil.rmtree(place, ignore_errors=True)

    def _folder(self, endpoint: str, deployment: str) -> Path:
        return self._rehearsal.home / FOLDER / endpoint.lower() / deployment.lower()


def _key(endpoint: str, deployment: str) -> str:
    return f"{endpoint}/{deployment}".lower()
