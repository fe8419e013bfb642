"""A new deployment beside the old one, asked, then given traffic in steps; taken back by itself when anything fails.

deploy(Settings.load(), Asked(run="my-run"), yes=True)

Nothing that is live is deleted before what takes its place answers. Given again after an interruption, it goes on: what
is there already and right is used, what is half made is replaced.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from devtools import models
from devtools.azure import deployment, endpoint, lock, prices, quota, registration, smoke
from devtools.azure.confirm import confirm
from devtools.azure.deployment import MODEL, NAMES, Wanted
from devtools.azure.refusals import told
from devtools.azure.workspace import Workspace, connect
from devtools.errors import BadInput, KitError
from devtools.settings import Settings

#: Percents of the traffic, one after the other, and the answers that each step has to give.
STEPS, ANSWERS = (10, 50, 100), 5
#: The endpoint's tag with the model that was live before.
PREVIOUS = "previous"


@dataclass(frozen=True)
class Asked:
    """What `phikit azure deploy` was asked for."""

    run: str | None = None
    model: str | None = None
    endpoint: str | None = None
    instance: str | None = None
    keep: bool = False


def deploy(settings: Settings, asked: Asked, *, yes: bool) -> None:
    """Deploy as asked; raises BadInput before anything is sent, KitError when it is refused or rolled back."""
    folder = _checked(asked)
    workspace = connect(settings)
    name = endpoint.name_of(workspace, asked.endpoint)
    size = quota.find(workspace, endpoint.instance_of(settings, asked.instance), "--instance")
    if asked.model:
        model = ":".join(_known(workspace, *registration.parse(asked.model)))
    else:
        model = ":".join(registration.register(workspace, asked.run))
    wanted = Wanted(model, size, folder.parent.name if folder else None)
    environment = deployment.environment_of(workspace, wanted)
    there = endpoint.find(workspace, name)
    found = endpoint.deployments(workspace, name) if there else {}
    live = endpoint.live(there) if there else None
    if live and (there.traffic or {}).get(live) == 100 and deployment.is_same(found[live], wanted, environment):
        _say(f"endpoint {name}: {live} is {model} already, with all of the traffic")
        print(there.scoring_uri)
        return
    _look_before_spending(workspace, name, wanted, found, yes)
    endpoint.ensure(workspace, name)
    try:
        with lock.held(workspace, name):
            _roll_out(workspace, name, wanted, environment, smoke.question_for(folder), keep=asked.keep)
    except KitError:
        if there is None and not endpoint.deployments(workspace, name):
            # made for this, and there is nothing behind it
            endpoint.remove(workspace, name)
        raise
    print(endpoint.require(workspace, name).scoring_uri)


def rollback(settings: Settings, asked: str | None, *, yes: bool) -> None:
    """Give the traffic back to the deployment that had it before, or deploy the model that was live before again."""
    workspace = connect(settings)
    name = endpoint.name_of(workspace, asked)
    there = endpoint.require(workspace, name)
    live, found = endpoint.live(there), endpoint.deployments(workspace, name)
    other = next((one for one in found if one != live and found[one].provisioning_state == "Succeeded"), None)
    if live and other:
        confirm(f"endpoint {name}: all traffic from {live} back to {other}; do it?", yes)
        with lock.held(workspace, name):
            _answers(workspace, name, other, smoke.QUESTION)
            endpoint.change(
                workspace, name, traffic={live: 0, other: 100}, **{PREVIOUS: (found[live].tags or {}).get(MODEL)}
            )
        _say(f"endpoint {name}: {other} has all of the traffic again")
        return
    before = (there.tags or {}).get(PREVIOUS)
    if not before:
        raise BadInput(f"endpoint {name}: has had no model before this one; phikit azure deploy --model NAME:VERSION")
    deploy(settings, Asked(model=before, endpoint=name, instance=found[live].instance_type if live else None), yes=yes)


def _checked(asked: Asked) -> Path | None:
    """The folder of the model that is asked for, where it is here; raises BadInput with every finding."""
    findings: list[str] = []
    if asked.run and asked.model:
        findings.append("--run and --model: name one of them")
    if asked.endpoint:
        with _collected(findings):
            endpoint.check_name(asked.endpoint, "--endpoint")
    folder = None
    with _collected(findings):
        if asked.model:
            registration.parse(asked.model)
        else:
            folder = models.choose(asked.run, None)
    if findings:
        raise BadInput(findings)
    return folder


@contextlib.contextmanager
def _collected(findings: list[str]):  # noqa: ANN202 - a context manager of nothing
    try:
        yield
    except BadInput as error:
        findings += error.findings


def _known(workspace: Workspace, name: str, version: str) -> tuple[str, str]:
    with told(f"--model {name}:{version}"):
        found = workspace.client.models.get(name, version)
    return found.name, str(found.version)


def _look_before_spending(workspace: Workspace, name: str, wanted: Wanted, found: dict, yes: bool) -> None:
    quota.check(workspace, wanted.size, 1, endpoint=True)
    price = prices.hourly(wanted.size.name, workspace.location)
    beside = ", for some minutes beside the one that is there" if found else ""
    confirm(
        f"endpoint {name}: one {wanted.size.name}, {prices.an_hour(price)} ({prices.a_day(price)} a day) until "
        f"`phikit azure down`{beside}; deploy {wanted.model}?",
        yes,
    )


def _roll_out(workspace: Workspace, name: str, wanted: Wanted, environment: object, question: str, keep: bool) -> None:
    there = endpoint.require(workspace, name)
    old = endpoint.live(there)
    new = next(candidate for candidate in NAMES if candidate != old)
    try:
        _have(workspace, name, new, wanted, environment)
        _answers(workspace, name, new, question)
        _shift(workspace, name, old, new, question)
    except KitError as error:
        _take_back(workspace, name, old, new)
        raise KitError(
            f"{error}; {f'{old} has all of the traffic, as before' if old else 'there was none before it'}"
        ) from error
    if old:
        before = endpoint.deployments(workspace, name).get(old)
        endpoint.change(workspace, name, **{PREVIOUS: (before.tags or {}).get(MODEL) if before else None})
        if not keep:
            endpoint.remove_deployment(workspace, name, old)
            _say(f"deployment {old}: removed")


def _have(workspace: Workspace, name: str, new: str, wanted: Wanted, environment: object) -> None:
    """Have the new deployment ready: the one that an earlier try left, if it is right, or a new one."""
    left = deployment.settled(workspace, name, new)
    if left is not None:
        if left.provisioning_state == "Succeeded" and deployment.is_same(left, wanted, environment):
            _say(f"deployment {new}: is there already")
            return
        _say(f"deployment {new}: is left over from another time, removing it")
        endpoint.remove_deployment(workspace, name, new)
    deployment.make(workspace, name, new, wanted, environment)


def _answers(workspace: Workspace, name: str, new: str, question: str) -> None:
    """Ask the new deployment, whatever traffic it gets; raises KitError when it does not answer."""
    uri, key = endpoint.require(workspace, name).scoring_uri, endpoint.keys(workspace, name).primary_key
    try:
        text = smoke.ask_patiently(uri, key, question, new)
    except smoke.NoAnswer as error:
        raise KitError(f"deployment {new}: does not answer {question!r} ({error})") from error
    _say(f"deployment {new}: {question} {' '.join(text.split())[:120]}")


def _shift(workspace: Workspace, name: str, old: str | None, new: str, question: str) -> None:
    """Move the traffic in steps, and look at each whether the endpoint answers; raises KitError when it does not."""
    uri, key = endpoint.require(workspace, name).scoring_uri, endpoint.keys(workspace, name).primary_key
    for percent in STEPS if old else STEPS[-1:]:
        share = {new: percent} | ({old: 100 - percent} if old else {})
        endpoint.set_traffic(workspace, name, share)
        for number in range(ANSWERS):
            try:
                # as anybody asks, and the new one by its name: at 10 % it would hardly be asked otherwise
                smoke.ask_patiently(uri, key, question, new if number % 2 else None)
            except smoke.NoAnswer as error:
                raise KitError(f"deployment {new}: fails at {percent} % of the traffic ({error})") from error
        _say(f"traffic: {percent} % to {new}")


def _take_back(workspace: Workspace, name: str, old: str | None, new: str) -> None:
    """Traffic back to the old one, the new one's log shown, then removed."""
    _say(f"deployment {new}: taken back")
    with contextlib.suppress(KitError):
        if old:
            endpoint.set_traffic(workspace, name, {old: 100} | ({new: 0} if _is_there(workspace, name, new) else {}))
        if log := endpoint.container_log(workspace, name, new):
            _say(f"the end of what {new} says:\n{log.rstrip()}")
        if _is_there(workspace, name, new):
            if not old:
                endpoint.set_traffic(workspace, name, {new: 0})
            endpoint.remove_deployment(workspace, name, new)


def _is_there(workspace: Workspace, name: str, new: str) -> bool:
    return deployment.settled(workspace, name, new) is not None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
