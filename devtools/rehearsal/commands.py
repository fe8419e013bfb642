"""`phikit rehearsal`: start, end and ask the emulator, run programs in it. It imports click alone: help is instant.

phikit rehearsal up
phikit rehearsal run -- python your_script.py
phikit rehearsal down
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devtools.errors import FAILED, BadInput, KitError
from devtools.examples import ExampleGroup

if TYPE_CHECKING:
    from types import ModuleType


@click.group(cls=ExampleGroup)
def rehearsal() -> None:
    """Azure on this machine: an emulator that the real SDK talks to, with no account and at no cost.

    Jobs really run, images are really pushed, endpoints really answer. What that proves is the client and what it says
    on the wire, not that Azure consents.

    Examples:
      phikit rehearsal up                                start it, see its names
      phikit rehearsal run -- python your_script.py      any program, signed in to it
      phikit rehearsal refuse quota                      let it refuse something
      phikit rehearsal calls --bodies                    what was said
      phikit rehearsal down
    """


@rehearsal.command()
def up() -> None:
    """Start the rehearsal, unless it runs, and print the names of what there is.

    Examples:
      phikit rehearsal up
    """
    session, home = _session()
    started = session.ensure_up(home)
    click.echo("\n".join(_introduction(session, home, "runs" if started else "runs already")))


@rehearsal.command()
def down() -> None:
    """End the rehearsal and everything that it started: jobs, endpoints, storage. What it knows stays.

    Examples:
      phikit rehearsal down
    """
    session, home = _session()
    click.echo("the rehearsal is ended" if session.end(home) else "no rehearsal runs")


@rehearsal.command()
def reset() -> None:
    """End the rehearsal and remove what it knows: jobs, models, endpoints, images, the record of calls.

    Examples:
      phikit rehearsal reset
    """
    session, home = _session()
    click.echo("the rehearsal begins anew" if session.reset(home) else "there is nothing to remove")


@rehearsal.command()
def status() -> None:
    """Say whether the rehearsal runs, what it refuses, and what was asked of it in vain.

    Exit code 1 if it does not run.

    Examples:
      phikit rehearsal status
    """
    session, home = _session()
    from devtools.rehearsal import report

    if session.running(home) is None:
        click.echo("no rehearsal runs: phikit rehearsal up")
        sys.exit(FAILED)
    click.echo("\n".join([*_introduction(session, home, "runs"), "", *report.status(home)]))


@rehearsal.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def run(arguments: tuple[str, ...]) -> None:
    """Run a program in the rehearsal, which is started if need be; its exit code is this command's.

    Proxy, certificate and sign-in are set in its environment: for DefaultAzureCredential, AzureCliCredential (an `az`
    of the rehearsal's is first on its PATH) and everything else that asks Azure for a token. Every other host is
    refused.

    Examples:
      phikit rehearsal run -- python your_script.py
      phikit rehearsal run -- az account show
      phikit rehearsal run -- phikit azure train
    """
    import os

    from devtools.settings import inherited

    session, home = _session()
    if session.ensure_up(home):
        click.echo(f"started a rehearsal of Azure in {home} (phikit rehearsal down ends it)", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        # in place of this process: signals and the exit code are the program's own
        os.execvpe(arguments[0], list(arguments), inherited() | session.environment(home))
    except OSError as error:
        raise BadInput(f"COMMAND {arguments[0]}: cannot be run: {error.strerror}") from error


@rehearsal.command()
@click.option("--bodies", is_flag=True, help="With what was sent and what was answered.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="The last N calls.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a call.")
def calls(bodies: bool, last: int | None, as_json: bool) -> None:
    """Print the calls that were made, oldest first, with secrets masked. W stands for the workspace.

    Examples:
      phikit rehearsal calls
      phikit rehearsal calls --bodies --last 5
      phikit rehearsal calls --json
    """
    _, home = _session()
    from devtools.rehearsal import report

    found = report.calls(home)
    for call in found[-last:] if last else found:
        click.echo(json.dumps(call, ensure_ascii=False) if as_json else report.line(call, bodies))


@rehearsal.command()
@click.argument("name", required=False)
@click.option("--times", type=click.IntRange(1), metavar="N", help="Refuse N times.  [default: until switched off]")
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    help="Of slow: the delay; of throttle, unavailable: Retry-After; of preempt, node-loss: when, if the job writes no "
    "checkpoint.",
)
@click.option("--on", "word", metavar="WORD", help="Of role: only what has this in its action, such as computes/write.")
@click.option("--none", is_flag=True, help="Switch it off again; without NAME: all of them.")
def refuse(name: str | None, none: bool, times: int | None, seconds: float | None, word: str | None) -> None:
    """Let the rehearsal refuse something, to see how a program takes it; without NAME: what is refused now.

    \b
      quota           not enough quota for the size of a cluster or deployment
      role            the role for a write is missing
      sku             the size is not offered in the region
      preempt         the node of a running low-priority job is taken away
      node-loss       the node of a running job is lost
      image-pull      an image cannot be pulled
      slow            provisioning takes longer
      throttle        429 with Retry-After
      unavailable     503 with Retry-After
      expired-token   the token is expired
      probe           a deployment's probes fail
      storage-write   the storage cannot be written
      name-taken      the endpoint's name is somebody else's
      job-fails       the job's command fails

    Examples:
      phikit rehearsal refuse quota
      phikit rehearsal refuse throttle --times 3 --seconds 2
      phikit rehearsal refuse role --on computes/write
      phikit rehearsal refuse --none
    """
    _, home = _session()
    from devtools.rehearsal import report

    told = {"seconds": seconds, "on": word}
    options = {key: value for key, value in told.items() if value is not None}
    if none and (times or options):
        raise BadInput("--none: goes with no other option")
    if (times or options) and not name:
        raise BadInput("NAME: is missing; phikit rehearsal refuse --help lists the refusals")
    with report.refusals(home) as refusals:
        if none:
            refusals.switch_off(name)
        elif name:
            refusals.switch_on(name, times, **options)
        click.echo("\n".join(report.refused(refusals)))


def _introduction(session: ModuleType, home: Path, how: str) -> list[str]:
    from devtools.rehearsal import GROUP, LOCATION, SUBSCRIPTION, TENANT, WORKSPACE

    facts: dict[str, Any] = session.running(home) or {}
    where = {"docker": "containers", "process": "processes of this Python's environment"}[facts["runner"]]
    return [
        f"A rehearsal of Azure {how}; jobs and endpoints are {where}. It is known by these names:",
        f"  tenant          {TENANT}",
        f"  subscription    {SUBSCRIPTION}",
        f"  resource group  {GROUP}",
        f"  workspace       {WORKSPACE}   (region {LOCATION})",
        f"  registry        localhost:{facts['registry_port']}",
        "Run any program in it:    phikit rehearsal run -- python your_script.py",
        "The kit's own commands:   REHEARSE=1 make azure-train",
        "What was said:            phikit rehearsal calls",
        "It shows what a client says and how it copes, not that Azure consents (devtools/rehearsal/README.md).",
    ]


def _session() -> tuple[ModuleType, Path]:
    """What starts and ends emulators, and the home of this one; raises KitError where its packages are missing."""
    try:
        import cryptography  # noqa: F401
        import httpx  # noqa: F401
        import uvicorn  # noqa: F401

        from devtools.rehearsal import session
    except ModuleNotFoundError as error:
        raise KitError(f"the rehearsal needs packages that are missing here ({error.name}): make setup-azure") from None
    from devtools.settings import Settings

    return session, session.home(Settings.load())
