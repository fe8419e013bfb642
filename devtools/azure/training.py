"""A training on Azure from the command line to its report: look, ask, have what it needs, submit, follow, bring home.

phikit azure train --recipe tiny_cpu --name first

The same command goes on with a run that was interrupted anywhere: a job that is there is followed, one that was lost
with its node is submitted again on the same outputs, and so goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import click

from devtools import errors
from devtools.azure import compute, datasets, homecoming, image, prices, stream, submission
from devtools.azure.confirm import confirm
from devtools.azure.progress import say
from devtools.azure.refusals import told
from devtools.azure.submission import CANCELED, COMPLETED, FAILED, Record, Submission
from devtools.azure.workspace import Workspace, connect
from devtools.connections import NO_HUB, local_model
from devtools.errors import BadInput, KitError
from devtools.local import choose
from devtools.runs import Run, Runs
from devtools.settings import ROOT, Settings
from devtools.training_run import MODEL_KEY, Plan, Request, claim, conclude, models_of, plan, prepare, value_of

#: Times that a job is submitted again after its node was lost.
AGAIN = 3
#: Words of the service for a node that went, and of a training that was told to go and kept a checkpoint; a job's own
#: failures are never tried again.
LOST = (
    "NodeLost",
    "node was lost",
    "NodePreempted",
    "preempted",
    "node is unusable",
    "ComputeNodeLost",
    f"exited with status code {errors.STOPPED}.",
)
#: Weights that nobody trains on a CPU.
HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class Training:
    """One run that is to be trained in a workspace."""

    workspace: Workspace
    planned: Plan
    run: Run
    profile: compute.Profile

    def record(self) -> Record:
        """What was submitted for it; raises BadInput where that was elsewhere, or cannot be read."""
        known = Record.read(self.run)
        if known is None and (self.run.folder / submission.RECORD).exists():
            raise BadInput(f"runs/{self.run.name}/{submission.RECORD}: cannot be read; choose another --name")
        known = known or Record.new(self.workspace, self.run)
        if known.workspace.lower() != self.workspace.id.lower():
            raise BadInput(f"runs/{self.run.name}: was begun in {known.workspace}; choose another --name")
        return known

    def have_job(self, record: Record, yes: bool) -> Record:
        """The record with a job that runs, waits or is complete: the one that is there, or a new one."""
        there = submission.find(self.workspace, record.job) if record.job else None
        if there is None:
            # (written down, and not submitted any more)
            record = record.without_last()
        elif (state := submission.state_of(there)) not in (CANCELED, FAILED):
            say(f"job: {record.job} is there ({state})")
            return record
        self._ask(yes)
        environment = image.environment(self.workspace, self.profile.gpu)
        cluster = compute.ensure(self.workspace, self.profile)
        wanted = Submission(
            planned=self.planned,
            run=self.run,
            environment=f"azureml:{environment.name}:{environment.version}",
            image_digest=(environment.tags or {}).get("digest", ""),
            cluster=cluster,
            data=datasets.ensure(self.workspace, self.planned.dataset),
            hours=self.profile.hours,
        )
        return submission.submit(self.workspace, wanted, record)

    def follow(self, record: Record) -> Record:
        """Follow the job, and those that take its place, to the end; the record of the one that is complete.

        Raises:
            KitError: the last one failed or was canceled, or nothing more can be learned of it.
        """
        for left in range(AGAIN, -1, -1):
            name = str(record.job)
            status = _follow_one(self.workspace, name)
            if status == COMPLETED:
                break
            reason = stream.error_of(self.workspace, name)
            said = f" ({reason})" if reason else ""
            if status == CANCELED:
                raise KitError(
                    f"job {name}: was canceled{said}; the same command submits it again and goes on from its last "
                    f"checkpoint (it may take {self.profile.hours} h: PHIKIT_AZURE_HOURS)"
                )
            if not left or not any(word.lower() in reason.lower() for word in LOST):
                raise KitError(
                    f"job {name}: {status.lower()}{said}; its log is above, and in "
                    f"{stream.studio(self.workspace, name)}; the same command submits it again and goes on from its "
                    "last checkpoint"
                )
            say(f"job {name}: its node was lost; submitted again, it goes on from its last checkpoint")
            record = self.have_job(record, yes=True)
        return record

    def _ask(self, yes: bool) -> None:
        """Show what it costs, and ask; raises KitError where the quota does not allow it, or the answer is no."""
        offer, hours = compute.examine(self.workspace, self.profile), self.profile.hours
        most = "" if offer.hourly is None else f", {offer.hourly * hours:.2f} USD at most ({hours} h)"
        low = " at low priority" if offer.low else ""
        confirm(f"one node of {offer.size}{low}: {prices.an_hour(offer.hourly)} while it runs{most}; train?", yes)


def train(request: Request, settings: Settings, *, yes: bool, wait: bool, root: Path = ROOT) -> int:
    """Train on Azure as requested and return the exit code; raises BadInput before anything is sent."""
    planned, profile = _checked(request, settings, root)
    workspace = connect(settings)
    # (data needs no GPU, and this machine may have no image for one)
    code = prepare(planned, replace(request, gpu=False), choose(settings), settings) if planned.dataset.source else 0
    if code:
        return code
    runs = Runs(root / "runs")
    run, is_new = claim(planned, request, root, f"in the workspace {workspace.name.lower()}")
    training = Training(workspace, planned, run, profile)
    try:
        with run.held():
            record = training.have_job(training.record(), yes)
            if not wait:
                say(f"job: {record.job}; phikit azure logs {record.job} --follow")
                say("the same command brings it home")
                return errors.OK
            record = training.follow(record)
            homecoming.bring_home(workspace, run, record)
            return conclude(errors.OK, run, runs)
    except BaseException:
        if is_new:
            _take_back(run, runs)
        raise


def cancel(workspace: Workspace, name: str) -> None:
    """Ask the service to end a job, and wait until it has taken that in."""
    with told(f"job {name}"):
        workspace.client.jobs.begin_cancel(name).result()


def _checked(request: Request, settings: Settings, root: Path) -> tuple[Plan, compute.Profile]:
    """The plan and the cluster; raises BadInput with every finding about either."""
    findings: list[str] = []
    planned, gpu, profile = None, request.gpu, None
    try:
        planned = plan(request, root)
        findings += _homebound(planned, root)
        if not gpu and _wants_gpu(planned):
            gpu = True
            say(f"recipe {planned.recipe}: its weights are no float32, so it gets a GPU")
    except BadInput as error:
        findings += error.findings
    try:
        profile = compute.profile_of(settings, gpu)
    except BadInput as error:
        findings += error.findings
    if findings or planned is None or profile is None:
        raise BadInput(findings)
    return planned, profile


def _wants_gpu(planned: Plan) -> bool:
    """Whether a recipe's weights are of a kind that CPUs are slow with."""
    return str(value_of(planned, "dtype")) in HALF or any(value_of(planned, f"load_in_{bits}bit") for bits in (4, 8))


def _homebound(planned: Plan, root: Path) -> list[str]:
    """What a plan names that lies on this machine alone."""
    findings = []
    recipes = root / "training" / "recipes"
    if planned.recipe != planned.recipe_file.stem:
        findings.append(f"--recipe {planned.recipe}: on Azure there is training/ alone; put the file into {recipes}")
    for name in models_of(planned):
        if name not in NO_HUB and local_model(name):
            option = "--model" if str(planned.model) == name else MODEL_KEY
            findings.append(f"{option} {name}: is a folder of this machine; for Azure name one of the hub (owner/name)")
    return findings


def _take_back(run: Run, runs: Runs) -> None:
    """Leave no run behind that came to nothing."""
    record = Record.read(run)
    if not (record and record.jobs):
        with contextlib.suppress(OSError):
            (run.folder / submission.RECORD).unlink(missing_ok=True)
            runs.withdraw(run)


def _follow_one(workspace: Workspace, name: str) -> str:
    """Follow one job; Ctrl-C asks what is to become of it."""
    try:
        return stream.follow(workspace, name)
    except KeyboardInterrupt:
        if _is_to_end():
            cancel(workspace, name)
            raise KitError(f"job {name}: canceled; the same command submits it again and goes on with it") from None
        say(f"job {name} goes on; the same command follows it again, phikit azure cancel {name} ends it")
        raise


def _is_to_end() -> bool:
    """Ask whoever is at the terminal; where nobody is, and at a second Ctrl-C, the job is left."""
    if not sys.stdin.isatty():
        return False
    click.echo(err=True)
    choices = click.Choice(["l", "c"])
    try:
        return click.prompt("leave the job, or cancel it?", type=choices, default="l", err=True) == "c"
    except click.Abort:
        click.echo(err=True)
        return False
