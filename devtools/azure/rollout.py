"""`phikit azure deploy`: look, ask, register, have the image and the endpoint, then let the new deployment take over.

deploy(Settings.load(), Asked(run="my-run"), yes=True)

Given again after an interruption, it goes on where it was (devtools/azure/succession.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devtools import models
from devtools.azure import deployment, endpoint, lock, prices, quota, registration, smoke
from devtools.azure.confirm import confirm
from devtools.azure.deployment import Wanted
from devtools.azure.progress import say
from devtools.azure.refusals import is_missing, told
from devtools.azure.succession import Succession
from devtools.azure.workspace import Workspace, connect
from devtools.errors import BadInput, KitError
from devtools.settings import ROOT, Settings

if TYPE_CHECKING:
    from azure.ai.ml.entities import Environment, ManagedOnlineDeployment, ManagedOnlineEndpoint


@dataclass(frozen=True)
class Asked:
    """What `phikit azure deploy` was asked for."""

    run: str | None = None
    model: str | None = None
    """`name:version`"""
    endpoint: str | None = None
    instance: str | None = None
    keep: bool = False
    environment: str | None = None
    """`name:version` of one that is there; None: the runtime image as it is now."""


def deploy(settings: Settings, asked: Asked, *, yes: bool, workspace: Workspace | None = None) -> None:
    """Deploy as asked, and print where it answers.

    Args:
        workspace: where somebody has signed in already.

    Raises:
        BadInput: before anything is sent or made.
        KitError: it is refused, or rolled back.
    """
    folder = _checked(settings, asked)
    workspace = workspace or connect(settings)
    name = endpoint.name_of(workspace, asked.endpoint)
    size = quota.find(workspace, endpoint.instance_of(settings, asked.instance), _setting(asked))
    if asked.model:
        folder = _of_this_machine(_known(workspace, asked.model))
    there = endpoint.find(workspace, name)
    endpoint.refuse_foreign(there)
    lock.refuse_held(workspace, name)
    found = endpoint.deployments(workspace, name) if there else {}
    if not found:
        quota.check(workspace, size, deployment.count(), endpoint=True)
    _ask(workspace, name, size, asked.model or (folder.parent.name if folder else ""), bool(found), yes)
    model = asked.model or ":".join(registration.register(workspace, asked.run))
    environment = _environment(workspace, asked, size)
    wanted = Wanted(model.removeprefix("azureml:"), size, environment, folder.parent.name if folder else None)
    if there and _is_live_already(there, found, wanted, asked.keep):
        say(f"endpoint {name}: {endpoint.live(there)} is {wanted.model} already, with all of the traffic")
    else:
        _let_succeed(workspace, name, wanted, smoke.question_for(folder), asked.keep)
    print(endpoint.require(workspace, name).scoring_uri)


def _let_succeed(workspace: Workspace, name: str, wanted: Wanted, question: str, keep: bool) -> None:
    with lock.held(workspace, name) as held:
        made = endpoint.ensure(workspace, name)
        try:
            Succession(workspace, name, wanted, question, held, keep).run()
        except KitError:
            if made and not endpoint.deployments(workspace, name):
                say(f"endpoint {name}: was made for this, removing it")
                endpoint.remove(workspace, name)
            raise


def _is_live_already(
    there: ManagedOnlineEndpoint, found: dict[str, ManagedOnlineDeployment], wanted: Wanted, keep: bool
) -> bool:
    """Whether there is nothing to do: what is wanted has all of the traffic, and nothing else is to be removed."""
    live = endpoint.live(there)
    return (
        live in found
        and endpoint.shares(there) == {live: 100}
        and endpoint.state_of(found[live]) == deployment.SUCCEEDED
        and wanted.is_in(found[live])
        and (keep or len(found) == 1)
    )


def _checked(settings: Settings, asked: Asked) -> Path | None:
    """The folder of the model that is asked for, where it is here; raises BadInput with every finding."""
    findings = endpoint.check(settings, asked.endpoint)
    folder = None
    try:
        if asked.run and asked.model:
            raise BadInput("--run and --model: name one of them")
        if asked.model:
            registration.parse(asked.model)
        else:
            folder = models.choose(asked.run, None)
    except BadInput as error:
        findings += error.findings
    if findings:
        raise BadInput(findings)
    return folder


def _setting(asked: Asked) -> str:
    return "--instance" if asked.instance else "PHIKIT_AZURE_INSTANCE"


def _known(workspace: Workspace, model: str) -> str | None:
    """The run of a registered model, where it says one; raises BadInput where there is no such model."""
    from azure.core.exceptions import AzureError

    name, version = registration.parse(model)
    with told(f"--model {model}"):
        try:
            return (workspace.client.models.get(name, version).tags or {}).get("run")
        except AzureError as error:
            if not is_missing(error):
                raise
    raise BadInput(f"--model {model}: workspace {workspace.name} has no such model; phikit azure register")


def _of_this_machine(run: str | None) -> Path | None:
    """The folder of a registered model's run, where it is here."""
    folder = ROOT / "runs" / run / "model" if run else None
    return folder if folder and (folder / models.MLMODEL).is_file() else None


def _environment(workspace: Workspace, asked: Asked, size: quota.Size) -> Environment:
    """The environment that is asked for, if it is still there; else the runtime image."""
    from azure.core.exceptions import AzureError

    if asked.environment:
        name, _, version = asked.environment.partition(":")
        with told(f"environment {asked.environment}"):
            try:
                return workspace.client.environments.get(name, version)
            except AzureError as error:
                if not is_missing(error):
                    raise
        say(f"environment {asked.environment}: is not there any more; taking the image as it is now")
    return deployment.environment_of(workspace, size.gpus > 0)


def _ask(workspace: Workspace, name: str, size: quota.Size, what: str, beside: bool, yes: bool) -> None:
    price, count = prices.hourly(size.name, workspace.location), deployment.count()
    others = ", for some minutes beside the one that is there" if beside else ""
    confirm(
        f"endpoint {name}: {count} x {size.name}, {prices.an_hour(price, count)} ({prices.a_day(price, count)} a day) "
        f"until `phikit azure down`{others}; deploy {what}?",
        yes,
    )
