"""The commands of `phikit azure` that train: train, list, status, logs, cancel, register.

phikit azure train --help
"""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from devtools.examples import Examples, training_options


@click.command(cls=Examples)
@training_options
@click.option(
    "--gpu", is_flag=True, help="The GPU cluster and image.  [default: for recipes with weights in 16 or 4 bits]"
)
@click.option("--cluster", help="Name of the cluster.  [default: PHIKIT_AZURE_CLUSTER]")
@click.option("--yes", is_flag=True, help="Spend without a question.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow the job and bring its outputs home.")
def train(overrides: tuple[str, ...], cluster: str | None, yes: bool, wait: bool, **options: object) -> None:
    """Fine-tune on a cluster: the job of `phikit train`, in the same image, and its outputs brought home.

    Shows the price and looks at the quota, then asks. Given again after any interruption, it goes on with the job.
    Ctrl-C asks whether the job is to go on.

    Examples:
      phikit azure train
      phikit azure train --recipe phi3_5_mini_lora --data chats.jsonl --name chats
      phikit azure train --set num_train_epochs=10 --yes --no-wait

    Exit codes: 0 done, 1 refused or failed, 2 bad input, 130 Ctrl-C.
    """
    from devtools.azure.training import train
    from devtools.settings import Settings
    from devtools.training_run import Request

    settings = Settings.load()
    if cluster:
        settings = replace(settings, azure_cluster=cluster)
    sys.exit(train(Request(overrides=overrides, **options), settings, yes=yes, wait=wait))


@click.command("list", cls=Examples)
def list_jobs() -> None:
    """List the kit's jobs in the workspace, newest first.

    Examples:
      phikit azure list
    """
    from devtools import tables
    from devtools.azure import jobs, submission
    from devtools.azure.workspace import connect
    from devtools.settings import Settings

    rows = []
    for job in jobs.listed(connect(Settings.load())):
        made = job.creation_context.created_at if job.creation_context else None
        tags = job.tags or {}
        rows.append(
            [job.name, submission.state_of(job), tags.get("recipe", ""), f"{made:%Y-%m-%d %H:%M}" if made else ""]
        )
    tables.show(["job", "state", "recipe", "submitted"], rows)


@click.command(cls=Examples)
@click.argument("job", required=False)
def status(job: str | None) -> None:
    """Say how a job stands, by its name or its run's; without one the newest.

    Examples:
      phikit azure status
      phikit azure status my-run
    """
    from devtools.azure import jobs, stream, submission
    from devtools.azure.workspace import connect
    from devtools.settings import Settings

    workspace = connect(Settings.load())
    found = jobs.find(workspace, job)
    state = submission.state_of(found)
    click.echo(f"{found.name}\t{state}\t{stream.studio(workspace, found.name)}")
    if state == "Failed" and (reason := stream.error_of(workspace, found.name)):
        click.echo(f"why: {reason}", err=True)


@click.command(cls=Examples)
@click.argument("job", required=False)
@click.option("--follow", is_flag=True, help="Go on until the job ends, or Ctrl-C; the job goes on either way.")
def logs(job: str | None, follow: bool) -> None:
    """Print a job's log, by its name or its run's; without one the newest's.

    Examples:
      phikit azure logs my-run
      phikit azure logs my-run --follow
    """
    from devtools.azure import jobs, stream
    from devtools.azure.workspace import connect
    from devtools.settings import Settings

    workspace = connect(Settings.load())
    found = jobs.find(workspace, job)
    if follow:
        sys.exit(0 if stream.follow(workspace, found.name) == "Completed" else 1)
    stream.Follower(workspace, found.name).print_so_far()


@click.command(cls=Examples)
@click.argument("job")
@click.option("--yes", is_flag=True, help="Without a question.")
def cancel(job: str, yes: bool) -> None:
    """End a job, by its name or its run's. Its checkpoints stay: the training goes on when it is given again.

    Examples:
      phikit azure cancel my-run
    """
    from devtools.azure import jobs
    from devtools.azure.confirm import confirm
    from devtools.azure.submission import ENDED, state_of
    from devtools.azure.training import cancel
    from devtools.azure.workspace import connect
    from devtools.settings import Settings

    workspace = connect(Settings.load())
    found = jobs.find(workspace, job)
    state = state_of(found)
    if state in ENDED:
        click.echo(f"job {found.name}: has ended already ({state})", err=True)
        return
    confirm(f"job {found.name} is {state}; cancel it?", yes)
    cancel(workspace, found.name)
    click.echo(f"job {found.name}: canceled", err=True)


@click.command(cls=Examples)
@click.option("--run", help="A run below runs/.  [default: the newest whole one]")
def register(run: str | None) -> None:
    """Register a run's model in the workspace, with its data, recipe, code and image; the same model once.

    Examples:
      phikit azure register
      phikit azure register --run my-run
    """
    from devtools.azure.registration import register
    from devtools.azure.workspace import connect
    from devtools.settings import Settings

    name, version = register(connect(Settings.load()), run)
    click.echo(f"{name}:{version}")


COMMANDS = (train, list_jobs, status, logs, cancel, register)
