"""`phikit azure rollback`: what was live before gets the traffic again, at once where it is still there.

rollback(Settings.load(), None, yes=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devtools.azure import deployment, endpoint, lock, smoke, watch
from devtools.azure.confirm import confirm
from devtools.azure.deployment import MODEL, REPLACES, Broken
from devtools.azure.progress import say
from devtools.azure.rollout import Asked, deploy
from devtools.azure.succession import PREVIOUS, PREVIOUS_ENVIRONMENT, before, newcomer_of
from devtools.azure.workspace import Workspace, connect
from devtools.errors import BadInput, KitError
from devtools.settings import Settings

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineEndpoint


def rollback(settings: Settings, asked: str | None, *, yes: bool) -> None:
    """Go back: end a roll-out that was left half-way, or take what was kept, or deploy the model of before again.

    Raises:
        BadInput: there is nothing to go back to.
        KitError: the service refuses it, or what was before does not answer; the traffic is then as it was.
    """
    if findings := endpoint.check(settings, asked):
        raise BadInput(findings)
    workspace = connect(settings)
    name = endpoint.name_of(workspace, asked)
    there = endpoint.require(workspace, name)
    endpoint.refuse_foreign(there)
    found, shares, live = endpoint.deployments(workspace, name), endpoint.shares(there), endpoint.live(there)
    if len(shares) > 1:
        newcomer = newcomer_of(found, shares)
        _end_half_way(workspace, name, newcomer, max(shares.keys() - {newcomer}, key=lambda one: shares[one]), yes)
        return
    kept = (found[live].tags or {}).get(REPLACES) if live in found else None
    if live and kept in found and endpoint.state_of(found[kept]) == deployment.SUCCEEDED:
        _take_kept(workspace, name, live, kept, yes)
        return
    tags = there.tags or {}
    if not tags.get(PREVIOUS):
        raise BadInput(f"endpoint {name}: has had no model before this one; phikit azure deploy --model NAME:VERSION")
    say(f"endpoint {name}: {tags[PREVIOUS]} was live before; it is deployed again")
    instance = found[live].instance_type if live in found else None
    wanted = Asked(model=tags[PREVIOUS], endpoint=name, instance=instance, environment=tags.get(PREVIOUS_ENVIRONMENT))
    deploy(settings, wanted, yes=yes, workspace=workspace)


def _end_half_way(workspace: Workspace, name: str, newcomer: str, old: str, yes: bool) -> None:
    confirm(f"endpoint {name}: all traffic back to {old}, {newcomer} removed; do it?", yes)
    with lock.held(workspace, name) as held:
        _refuse_changed(workspace, name, {newcomer, old})
        endpoint.change(workspace, name, traffic={old: 100})
        watch.arrives(workspace, name, old, smoke.QUESTION)
        held.check()
        deployment.remove(workspace, name, newcomer)
    say(f"endpoint {name}: {old} has all of the traffic again")


def _take_kept(workspace: Workspace, name: str, live: str, kept: str, yes: bool) -> None:
    found = endpoint.deployments(workspace, name)
    model = (found[kept].tags or {}).get(MODEL, "")
    confirm(f"endpoint {name}: all traffic from {live} back to {kept} ({model}), {live} removed; do it?", yes)
    with lock.held(workspace, name) as held:
        tags = _refuse_changed(workspace, name, {live}).tags or {}
        watch.answers(workspace, name, kept, smoke.QUESTION)
        held.check()
        endpoint.change(workspace, name, traffic={kept: 100}, **before(found[live]))
        try:
            watch.holds(workspace, name, kept, smoke.QUESTION, 100)
        except Broken as error:
            was = {tag: tags.get(tag) for tag in (PREVIOUS, PREVIOUS_ENVIRONMENT)}
            endpoint.change(workspace, name, traffic={live: 100}, **was)
            raise Broken(f"{error}; {live} has all of the traffic, as before") from error
        held.check()
        deployment.remove(workspace, name, live)
    say(f"endpoint {name}: {kept} has all of the traffic again")


def _refuse_changed(workspace: Workspace, name: str, expected: set[str]) -> ManagedOnlineEndpoint:
    """The endpoint, if the same deployments get traffic as when the question was asked; raises KitError if not."""
    there = endpoint.require(workspace, name)
    if set(endpoint.shares(there)) != expected:
        raise KitError(f"endpoint {name}: was changed meanwhile; give the same command again")
    return there
