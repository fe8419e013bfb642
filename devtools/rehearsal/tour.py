"""The whole way to Azure and back, rehearsed: check, train, deploy, ask, update under load, roll back, take down.

make azure-rehearse
python -m devtools.rehearsal.tour

It runs the kit's own commands, as they are typed for the real Azure, against the emulator, and says at the end what it
did, how long each step took, and what that does not prove. What it started is ended, whatever happens; an emulator that
ran before goes on.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from devtools import data
from devtools.errors import FAILED, INTERRUPTED, KitError
from devtools.rehearsal import session
from devtools.rehearsal.load import BEGUN
from devtools.settings import ROOT, Settings, inherited

QUESTION = "Who founded Microsoft?"
PHIKIT = (sys.executable, "-m", "devtools.cli")
#: The update is another model, trained for a shorter time: what matters is that it takes the first one's place.
UPDATE = ("--set", "seed=1", "--set", "num_train_epochs=10")
#: Seconds that the load has to end its last requests.
PATIENCE = 120
LIMITS = (
    "What this shows: the kit's client code and what it says on the wire. The job, the image, the registry, the",
    "storage and the scoring server were real; Azure was an emulator. What it does not show: that Azure consents",
    "(quota, roles, policies, capacity), how long it takes there, what it costs. `phikit azure check` asks the real",
    "Azure before anything is spent. devtools/rehearsal/README.md has the whole list.",
)


@dataclass(frozen=True)
class Step:
    """One thing that the tour did."""

    title: str
    seconds: float


class Tour:
    """The steps, in order; each is a command of the kit."""

    def __init__(self, settings: Settings) -> None:
        self.home = session.home(settings)
        self.steps: list[Step] = []
        self._environment = inherited()
        self._begun = time.monotonic()
        self._started = False
        # a run's name is taken for good, and runs stay: that is what a training is for
        stamp = datetime.now().strftime("%m%d-%H%M%S")
        self.first, self.second = f"rehearsed-{stamp}", f"rehearsed-{stamp}-update"

    def run(self) -> None:
        """All of it; raises KitError at the first step that ends otherwise than it has to."""
        begun = time.monotonic()
        self._started = session.ensure_up(self.home)
        try:
            self._environment = inherited() | session.environment(self.home)
            self._done("start the emulator", begun)
            self._way()
        finally:
            # nothing is left running that did not run before, also when a step failed
            if self._started:
                self._phikit("rehearsal", "down", expected=None)

    def _way(self) -> None:
        self._step("see who, where, and what is missing", "azure", "check")
        self._step("train, and bring the model home", "azure", "train", "--name", self.first, "--yes")
        self._step("register and deploy it", "azure", "deploy", "--run", self.first, "--yes")
        begun = time.monotonic()
        answer = self._ask()
        self._done(f"ask the endpoint: {QUESTION} {answer}", begun)
        self._step("train another one", "azure", "train", "--name", self.second, "--yes", *UPDATE)
        begun = time.monotonic()
        counted = self._under_load("azure", "deploy", "--run", self.second, "--yes")
        self._done(
            f"deploy it under load: {counted['answered']} requests answered, {counted['failed']} failed "
            f"(median {counted['median']} s, longest {counted['longest']} s)",
            begun,
        )
        if counted["failed"]:
            raise KitError(f"requests failed during the update: {counted['failures']}")
        begun = time.monotonic()
        self._phikit("rehearsal", "refuse", "probe")
        try:
            self._phikit("azure", "deploy", "--run", self.first, "--yes", expected=FAILED)
        finally:
            self._phikit("rehearsal", "refuse", "--none", expected=None)
        self._ask()
        self._done("deploy one that does not start: refused, the one before still answers", begun)
        self._step("take everything down", "azure", "down", "--yes")

    def _ask(self) -> str:
        """What the endpoint answers, on one line; raises KitError when that is nothing."""
        answer = " ".join((self._phikit("azure", "invoke", QUESTION, quiet=True).stdout or "").split())
        if not answer:
            raise KitError(f"the endpoint's answer to {QUESTION!r} is empty")
        print(answer, flush=True)
        return answer

    def _step(self, title: str, *arguments: str) -> None:
        begun = time.monotonic()
        self._phikit(*arguments)
        self._done(title, begun)

    def _done(self, title: str, begun: float) -> None:
        self.steps.append(Step(title, time.monotonic() - begun))

    def _phikit(self, *arguments: str, quiet: bool = False, expected: int | None = 0) -> subprocess.CompletedProcess:
        """Run a command of the kit to its end; raises KitError when it ends with another exit code (None: any)."""
        line = f"phikit {' '.join(arguments)}"
        print(f"\n$ {line}", flush=True)
        done = subprocess.run(
            [*PHIKIT, *arguments],
            cwd=ROOT,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE if quiet else None,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if expected is not None and done.returncode != expected:
            raise KitError(f"{line}: ended with exit code {done.returncode}, expected {expected}")
        return done

    def _under_load(self, *arguments: str) -> dict[str, Any]:
        """Run a command while the endpoint gets a constant load; what the load counted."""
        load = ["azure", "connect", "--", sys.executable, "-m", "devtools.rehearsal.load"]
        print("\n$ phikit azure connect -- python -m devtools.rehearsal.load &", flush=True)
        process = subprocess.Popen(
            [*PHIKIT, *load],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        try:
            # the update begins once there are requests that it could fail
            if not process.stdout or process.stdout.readline().strip() != BEGUN:
                raise KitError("the load got no answer from the endpoint; what it says is above")
            self._phikit(*arguments)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                said = process.communicate(timeout=PATIENCE)[0]
            except subprocess.TimeoutExpired as error:
                process.kill()
                process.communicate()
                raise KitError(f"the load did not end within {PATIENCE} s of being asked to") from error
        try:
            return json.loads(said.splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise KitError(f"the load said nothing that can be read: {said[-200:]!r}") from error

    def report(self, whole: bool) -> list[str]:
        """What was done, for people."""
        lines = ["", "rehearsed:", *(f"  {step.seconds:6.1f} s  {step.title}" for step in self.steps)]
        lines.append(f"  {time.monotonic() - self._begun:6.1f} s  {'in all' if whole else 'until it broke off'}")
        if whole:
            home = data.near(ROOT / "runs" / self.first)
            lines += ["", f"The model is in {home}. Every call that was made: phikit rehearsal calls", *LIMITS]
        if not self._started and session.running(self.home):
            lines += ["", "The rehearsal ran before, and goes on: phikit rehearsal down"]
        return lines


def main() -> int:
    """Run the tour and print what came of it; the exit code."""
    # asked to end, it ends what it began, as with Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tour = Tour(Settings.load())
    code = 0
    try:
        tour.run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.code
    print("\n".join(tour.report(whole=code == 0)))
    return code


if __name__ == "__main__":
    sys.exit(main())
