"""A training on Azure from the command line to its report: look, ask, have what it needs, submit, follow, bring home.

phikit azure train --recipe tiny_cpu --name first

The same command goes on with a run that was interrupted anywhere: a job that is there is followed, one that was lost
with its node is submitted again on the same outputs, and so goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from devtools import errors
from devtools.azure import compute, datasets, homecoming, image, prices, stream, submission
from devtools.azure.confirm import confirm
from devtools.azure.refusals import told
from devtools.azure.submission import CANCELED, COMPLETED, Record, Submission
from devtools.azure.workspace import Workspace, connect
from devtools.connections import NO_HUB, local_model
from devtools.errors import BadInput, KitError
from devtools.local import choose
from devtools.runs import Run, Runs
from devtools.settings import ROOT, Settings
from devtools.training_run import MODEL_KEY, Plan, Request, claim, conclude, plan, prepare

#: Times that a job is submitted again after its node was lost.
AGAIN = 3
#: Words of the service for a node that went (the job's own failures are never tried again).
LOST = ("NodeLost", "node was lost", "NodePreempted", "preempted", "node is unusable", "ComputeNodeLost")


def train(request: Request, settings: Settings, *, yes: bool, wait: bool, root: Path = ROOT) -> int:
    """Train on Azure as requested and return the exit code; raises BadInput before anything is sent."""
    planned, profile = _checked(request, settings, root)
    workspace = connect(settings)
    code = prepare(planned, request, choose(settings), settings) if planned.dataset.source else errors.OK
    if code:
        return code
    runs = Runs(root / "runs")
    run, is_new = claim(planned, request, root)
    try:
        record = _record(workspace, run)
        record = _have_job(workspace, planned, run, record, profile, gpu=request.gpu, yes=yes)
    except KitError:
        _take_back(run, runs, is_new)
        raise
    if not wait:
        click.echo(f"job: {record.job}; phikit azure logs {record.job} --follow", err=True)
        click.echo(f"the same command brings it home: phikit azure train --name {run.name} ...", err=True)
        return errors.OK

    def again(record: Record) -> Record:
        return _have_job(workspace, planned, run, record, profile, gpu=request.gpu, yes=True)

    record = _follow(workspace, record, again)
    homecoming.bring_home(workspace, run, record)
    return conclude(errors.OK, run, runs)


def _checked(request: Request, settings: Settings, root: Path) -> tuple[Plan, compute.Profile]:
    """The plan and the cluster; raises BadInput with every finding about either."""
    findings: list[str] = []
    planned = profile = None
    try:
        planned = plan(request, root)
        findings += _homebound(planned, root)
    except BadInput as error:
        findings += error.findings
    try:
        profile = compute.profile_of(settings, request.gpu)
    except BadInput as error:
        findings += error.findings
    if findings or planned is None or profile is None:
        raise BadInput(findings)
    return planned, profile


def _homebound(planned: Plan, root: Path) -> list[str]:
    """What a plan names that lies on this machine alone."""
    findings = []
    recipes = root / "training" / "recipes"
    if planned.recipe != planned.recipe_file.stem:
        findings.append(f"--recipe {planned.recipe}: on Azure there is training/ alone; put the file into {recipes}")
    for option, name in (("--model", planned.model), (f"--set {MODEL_KEY}", planned.overrides.get(MODEL_KEY))):
        if name and str(name) not in NO_HUB and local_model(str(name)):
            findings.append(f"{option} {name}: is a folder of this machine; for Azure name one of the hub (owner/name)")
    return findings


def _record(workspace: Workspace, run: Run) -> Record:
    record = Record.read(run) or Record.new(workspace, run)
    if record.workspace.lower() != workspace.id.lower():
        there = record.workspace.rpartition("/")[2]
        raise BadInput(f"runs/{run.name}: was begun in workspace {there}; name that one, or choose another --name")
    return record


def _take_back(run: Run, runs: Runs, is_new: bool) -> None:
    """Leave no run behind that came to nothing."""
    record = Record.read(run)
    if is_new and not (record and record.jobs):
        with contextlib.suppress(OSError):
            (run.folder / submission.RECORD).unlink(missing_ok=True)
            runs.withdraw(run)


def _have_job(
    workspace: Workspace, planned: Plan, run: Run, record: Record, profile: compute.Profile, *, gpu: bool, yes: bool
) -> Record:
    """The record with a job that runs, waits or is complete: the one that is there, or a new one."""
    there = submission.find(workspace, record.job) if record.job else None
    state = submission.state_of(there) if there is not None else CANCELED
    if state not in (CANCELED, submission.FAILED, "NotResponding"):
        click.echo(f"job: {record.job} is there ({state})", err=True)
        return record
    offer = compute.examine(workspace, profile)
    price = prices.an_hour(offer.hourly)
    most = "" if offer.hourly is None else f", {offer.hourly * profile.hours:.2f} USD at most ({profile.hours} h)"
    low = " at low priority" if offer.low else ""
    confirm(f"one node of {offer.size}{low}: {price} while it runs{most}; train?", yes)
    environment = image.environment(workspace, gpu)
    cluster = compute.ensure(workspace, profile)
    wanted = Submission(
        planned=planned,
        run=run,
        environment=f"azureml:{environment.name}:{environment.version}",
        image_digest=(environment.tags or {}).get("digest", ""),
        cluster=cluster,
        data=datasets.ensure(workspace, planned.dataset),
        hours=profile.hours,
    )
    return submission.submit(workspace, wanted, record)


def _follow(workspace: Workspace, record: Record, again: Callable[[Record], Record]) -> Record:
    """Follow a run's job, and those that take its place, to the end; the record of the one that is complete."""
    for left in range(AGAIN, -1, -1):
        status = _follow_one(workspace, str(record.job))
        if status == COMPLETED:
            return record
        reason = stream.error_of(workspace, str(record.job))
        if status == CANCELED:
            raise KitError(f"job {record.job}: was canceled; the same command submits it again and goes on with it")
        if not left or not any(word.lower() in reason.lower() for word in LOST):
            break
        click.echo(f"job {record.job}: its node was lost; submitted again, it goes on from its checkpoint", err=True)
        record = again(replace(record))
    said = f" ({reason})" if reason else ""
    raise KitError(
        f"job {record.job}: {status.lower()}{said}; its log is above, and in {stream.studio(workspace, record.job)}; "
        "the same command submits it again and goes on from its last checkpoint"
    )


def _follow_one(workspace: Workspace, name: str) -> str:
    """Follow one job; Ctrl-C asks what is to become of it."""
    try:
        return stream.follow(workspace, name)
    except KeyboardInterrupt:
        if sys.stdin.isatty():
            click.echo(err=True)
            if (
                click.prompt("leave the job, or cancel it?", type=click.Choice(["l", "c"]), default="l", err=True)
                == "c"
            ):
                cancel(workspace, name)
                raise KitError(f"job {name}: canceled") from None
        click.echo(f"job {name} goes on; so does the same command; phikit azure cancel {name} ends it", err=True)
        raise


def cancel(workspace: Workspace, name: str) -> None:
    """Ask the service to end a job, and wait until it has taken that in."""
    with told(f"job {name}"):
        workspace.client.jobs.begin_cancel(name).result()
