"""The commands of `phikit azure` that serve: deploy, endpoint, invoke, rollback, keys, connect, down.

phikit azure deploy --help
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from devtools.examples import Examples

if TYPE_CHECKING:
    from devtools.azure.workspace import Workspace

endpoint_option = click.option("--endpoint", help="The endpoint's name.  [default: PHIKIT_AZURE_ENDPOINT]")
yes_option = click.option("--yes", is_flag=True, help="Without a question.")


@click.command(cls=Examples)
@click.option("--run", help="A run below runs/.  [default: the newest whole one]")
@click.option("--model", metavar="NAME:VERSION", help="A registered model instead of a run's.")
@endpoint_option
@click.option("--instance", help="VM size.  [default: PHIKIT_AZURE_INSTANCE, or serving/deployment.yaml's]")
@click.option("--keep", is_flag=True, help="Leave the old deployment, without traffic, for a quick rollback; it costs.")
@yes_option
def deploy(yes: bool, **asked: object) -> None:
    """Put a model behind the managed endpoint, beside the one that is live, and move the traffic once it answers.

    The model is registered if need be. Shows the price, looks at the quota, then asks. What fails is taken back by
    itself, with the container's log; given again after an interruption, it goes on.

    Examples:
      phikit azure deploy
      phikit azure deploy --run my-run --keep
      phikit azure deploy --model phikit:3 --instance Standard_E4s_v3 --yes

    Exit codes: 0 done, 1 refused or rolled back, 2 bad input, 130 Ctrl-C.
    """
    from devtools.azure.rollout import Asked, deploy
    from devtools.settings import Settings

    deploy(Settings.load(), Asked(**asked), yes=yes)


@click.command(cls=Examples)
@endpoint_option
def endpoint(endpoint: str | None) -> None:
    """Say what is behind the endpoint: deployments, models, images, traffic, and what they cost a day.

    Examples:
      phikit azure endpoint
    """
    from devtools import tables
    from devtools.azure import deployment, prices
    from devtools.azure import endpoint as endpoints

    workspace, name = _workspace(endpoint)
    found = endpoints.require(workspace, name)
    rows = []
    for one in endpoints.deployments(workspace, name).values():
        count = one.instance_count or 1
        cost = prices.a_day(prices.hourly(one.instance_type, workspace.location), count)
        tags, share = one.tags or {}, (found.traffic or {}).get(one.name, 0)
        of = [tags.get(tag, "") for tag in (deployment.MODEL, deployment.ENVIRONMENT)]
        size = f"{count} x {one.instance_type}"
        rows.append([one.name, *of, f"{share} %", endpoints.state_of(one), size, cost])
    click.echo(f"{name}: {endpoints.state_of(found)}, {workspace.studio(f'endpoints/realtime/{name}')}", err=True)
    click.echo(found.scoring_uri, err=True)
    tables.show(["deployment", "model", "image", "traffic", "state", "instances", "a day"], rows)


@click.command(cls=Examples)
@click.argument("question", default="Who founded Microsoft?")
@endpoint_option
@click.option("--deployment", help="Ask this one, whatever traffic it gets.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=128, show_default=True, help="Of the answer.")
def invoke(question: str, endpoint: str | None, deployment: str | None, max_new_tokens: int) -> None:
    """Ask the endpoint a question, with its key, and print the answer.

    Examples:
      phikit azure invoke
      phikit azure invoke "Where is Microsoft based?" --max-new-tokens 32
    """
    from devtools.azure import smoke
    from devtools.errors import KitError

    address = smoke.Address.of(*_workspace(endpoint))
    try:
        click.echo(smoke.ask(address, question, deployment, max_new_tokens=max_new_tokens).text)
    except smoke.NoAnswer as error:
        raise KitError(f"{address.uri}: does not answer ({error}); phikit azure endpoint says how it stands") from error


@click.command(cls=Examples)
@endpoint_option
@yes_option
def rollback(endpoint: str | None, yes: bool) -> None:
    """Go back to what was live before: at once where it was kept, else its model is deployed again.

    Examples:
      phikit azure rollback
    """
    from devtools.azure.rollback import rollback
    from devtools.settings import Settings

    rollback(Settings.load(), endpoint, yes=yes)


@click.command(cls=Examples)
@endpoint_option
@click.option("--show", is_flag=True, help="Whole, instead of the first letters.")
@click.option(
    "--rotate",
    type=click.Choice(["both", "primary", "secondary"]),
    is_flag=False,
    flag_value="both",
    help="Make this one anew; without a value both, the secondary one first.",
)
def keys(endpoint: str | None, show: bool, rotate: str | None) -> None:
    """Show the endpoint's keys, masked, or make them anew: an old one is refused from then on.

    What the kit starts fetches the primary key when it starts: start it again after a rotation.

    Examples:
      phikit azure keys
      phikit azure keys --show
      phikit azure keys --rotate
      phikit azure keys --rotate primary
    """
    from devtools import tables
    from devtools.azure import endpoint as endpoints
    from devtools.azure import keys as both

    workspace, name = _workspace(endpoint)
    endpoints.require(workspace, name)
    if rotate:
        both.rotate(workspace, name, both.BOTH if rotate == "both" else [rotate])
    tables.show(["key", "value"], both.both(workspace, name, show))


@click.command(cls=Examples, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@endpoint_option
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def connect(endpoint: str | None, arguments: tuple[str, ...]) -> None:
    """Run a command with PHIKIT_ENDPOINT_URI and PHIKIT_ENDPOINT_KEY set: fetched now, kept nowhere.

    Examples:
      phikit azure connect -- make flow-test
      phikit azure connect -- make chat
    """
    from devtools.azure.connection import run
    from devtools.settings import Settings

    run(Settings.load(), endpoint, arguments)


@click.command(cls=Examples)
@click.option("--all", "everything", is_flag=True, help="Archive its models, environments and data too.")
@yes_option
def down(everything: bool, yes: bool) -> None:
    """Delete what the kit made here and that costs, the endpoint first; say what stays, and what that costs a day.

    Jobs that run are canceled. Runs, models, data and images stay. What the kit did not make is never touched.

    Examples:
      phikit azure down
      phikit azure down --all
    """
    from devtools.azure.teardown import take_down
    from devtools.azure.workspace import connect
    from devtools.settings import Settings

    take_down(connect(Settings.load()), yes=yes, everything=everything)


def _workspace(asked: str | None) -> tuple[Workspace, str]:
    """The workspace, signed in to, and the endpoint's name; raises BadInput for one that none can have."""
    from devtools.azure import endpoint as endpoints
    from devtools.azure.workspace import connect
    from devtools.errors import BadInput
    from devtools.settings import Settings

    settings = Settings.load()
    if findings := endpoints.check(settings, asked):
        raise BadInput(findings)
    workspace = connect(settings)
    return workspace, endpoints.name_of(workspace, asked)


COMMANDS = (deploy, endpoint, invoke, rollback, keys, connect, down)
