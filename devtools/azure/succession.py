"""One deployment takes another's place: started beside it, asked, given traffic in steps, watched; or taken back.

Succession(workspace, "my-endpoint", wanted, question, lock).run()

Where things stand is read off the endpoint each time, so that it goes on wherever an earlier try was left: what is
right is used, what is half made is waited for or replaced. Nothing that gets traffic is ever deleted.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from devtools.azure import deployment, endpoint, quota, watch
from devtools.azure.deployment import ENVIRONMENT, MODEL, NAMES, REPLACES, SUCCEEDED, Broken, Wanted
from devtools.azure.lock import Lock
from devtools.azure.progress import say
from devtools.azure.tags import is_ours
from devtools.azure.workspace import Workspace
from devtools.errors import KitError

if TYPE_CHECKING:
    from azure.ai.ml.entities import ManagedOnlineDeployment

#: Percents of the traffic, one after the other.
STEPS = (10, 50, 100)
#: The endpoint's tags with what was live before: model, environment.
PREVIOUS, PREVIOUS_ENVIRONMENT = "previous", "previous-environment"


@dataclass
class Succession:
    """The way of what is wanted to all of the traffic."""

    workspace: Workspace
    name: str
    """The endpoint's."""
    wanted: Wanted
    question: str
    lock: Lock
    keep: bool = False
    """The old deployment stays, without traffic."""
    stands: str = "nothing is changed yet"
    """How far it is, for whoever interrupts it."""

    def run(self) -> None:
        """All of it.

        Raises:
            Broken: the new deployment is no good, and taken back.
            KitError: the service refuses something or cannot be reached; all stays as it is.
        """
        try:
            self._succeed(*self._standing())
        except KeyboardInterrupt:
            say(f"stopped: {self.stands}; the same command goes on, phikit azure rollback goes back")
            raise

    def _succeed(self, old: str | None, new: str | None, is_live: bool) -> None:
        started = new or self._free_name()
        try:
            if new is None:
                self.stands = f"deployment {started} is being made, without traffic"
                self.lock.check()
                # (what was in the way is gone, and its cores are free)
                quota.check(self.workspace, self.wanted.size, deployment.count(), endpoint=True)
                deployment.make(self.workspace, self.name, started, self.wanted, replaces=old)
            self.stands = f"deployment {started} is there, without traffic"
            watch.answers(self.workspace, self.name, started, self.question)
            self._shift(old, started)
        except Broken as error:
            if is_live and old is None:
                raise Broken(f"{error}; it is live, and stays: phikit azure rollback goes back") from error
            self._take_back(old, started, error)
        self._clear(started)

    def _standing(self) -> tuple[str | None, str | None, bool]:
        """The deployment that is live, the one that is wanted if it is there, and whether that is live already.

        What is in their way is removed.
        """
        found = self._finished()
        shares = endpoint.shares(endpoint.require(self.workspace, self.name))
        right = [name for name, one in found.items() if endpoint.state_of(one) == SUCCEEDED and self.wanted.is_in(one)]
        new = max(right, key=lambda name: shares.get(name, 0), default=None)
        others = {name: percent for name, percent in shares.items() if name != new}
        if len(shares) > 1 and new not in shares:
            # an earlier roll-out of something else was left half-way: what it was to replace is what is good
            newcomer = newcomer_of(found, shares)
            del others[newcomer]
            say(f"deployment {newcomer}: its roll-out was broken off, and it is not what is wanted: no more traffic")
        old = max(others, key=lambda name: others[name], default=None)
        if len(shares) > 1 and new not in shares:
            endpoint.change(self.workspace, self.name, traffic={str(old): 100})
            watch.arrives(self.workspace, self.name, str(old), self.question)
        for name, one in found.items():
            # (what could be gone back to is in nobody's way until its name and its cores are needed)
            in_the_way = new is None or endpoint.state_of(one) != SUCCEEDED
            if name not in (old, new) and is_ours(one.tags) and in_the_way:
                say(f"deployment {name}: is left from another time, removing it")
                deployment.remove(self.workspace, self.name, name)
        return old, new, new in shares

    def _finished(self) -> dict[str, ManagedOnlineDeployment]:
        """The deployments once the service is done with each; one that is being made for nobody is given up."""
        for name, one in endpoint.deployments(self.workspace, self.name).items():
            if endpoint.state_of(one) == "Creating" and is_ours(one.tags) and not self.wanted.is_in(one):
                say(f"deployment {name}: is being made from an earlier try, and not what is wanted: removing it")
                deployment.remove(self.workspace, self.name, name)
            deployment.settled(self.workspace, self.name, name)
        return endpoint.deployments(self.workspace, self.name)

    def _free_name(self) -> str:
        taken = endpoint.deployments(self.workspace, self.name)
        free = next((name for name in NAMES if name not in taken), None)
        if free is None:
            raise KitError(
                f"endpoint {self.name}: has deployments {' and '.join(NAMES)} already, and one of them was not made by "
                "the kit; remove it, or choose another endpoint"
            )
        return free

    def _shift(self, old: str | None, new: str) -> None:
        """Move the traffic in steps, each only after the one before it held."""
        shares = endpoint.shares(endpoint.require(self.workspace, self.name))
        now = shares.get(new, 0)
        newcomer = newcomer_of(endpoint.deployments(self.workspace, self.name), shares) if len(shares) > 1 else None
        for percent in STEPS if old else STEPS[-1:]:
            if percent < now:
                continue
            self.lock.check()
            if percent != now:
                self._give(old, new, percent, was_live=not now or old != newcomer)
            self.stands = f"deployment {new} has {percent} % of the traffic"
            watch.holds(self.workspace, self.name, new, self.question, percent)
            say(f"traffic: {percent} % to {new}")

    def _give(self, old: str | None, new: str, percent: int, was_live: bool) -> None:
        shares = {new: percent} | ({old: 100 - percent} if old and percent < STEPS[-1] else {})
        # with the last step, at once: whoever comes after it knows what was before
        noted = old and was_live and percent == STEPS[-1]
        told = before(endpoint.deployments(self.workspace, self.name)[str(old)]) if noted else {}
        endpoint.change(self.workspace, self.name, traffic=shares, **told)

    def _take_back(self, old: str | None, new: str, error: Broken) -> NoReturn:
        """Traffic back to the old one first, then the new one's log shown, then it is removed."""
        self.stands = f"deployment {new} is being taken back"
        say(f"deployment {new}: {'is taken back' if old else 'is removed'}")
        try:
            if new in endpoint.shares(endpoint.require(self.workspace, self.name)):
                endpoint.change(self.workspace, self.name, traffic={old: 100} if old else {})
                if old:
                    watch.arrives(self.workspace, self.name, old, self.question)
            log = deployment.log(self.workspace, self.name, new)
            if log:
                say(f"the end of what {new} says:\n{textwrap.indent(log.rstrip(), '  ')}")
            deployment.remove(self.workspace, self.name, new)
        except KitError as second:
            raise KitError(f"{error}; and it cannot be taken back now: {second}") from error
        said = "; what it said is above" if log else ""
        raise Broken(
            f"{error}{said}; {f'{old} has all of the traffic, as before' if old else 'none is live'}"
        ) from error

    def _clear(self, new: str) -> None:
        """Remove what the new deployment took the place of, once nothing leads there any more."""
        self.stands = f"deployment {new} has all of the traffic"
        shares = endpoint.shares(endpoint.require(self.workspace, self.name))
        for name, one in endpoint.deployments(self.workspace, self.name).items():
            if name == new or name in shares:
                continue
            if self.keep or not is_ours(one.tags):
                say(f"deployment {name}: stays, without traffic; it costs what it did")
                continue
            self.lock.check()
            deployment.remove(self.workspace, self.name, name)
            say(f"deployment {name}: removed")


def newcomer_of(found: dict[str, ManagedOnlineDeployment], shares: dict[str, int]) -> str:
    """Of the deployments that share the traffic the one that was on its way to all of it."""
    known = (name for name in shares if name in found and (found[name].tags or {}).get(REPLACES) in shares)
    return next(known, None) or min(shares, key=lambda name: shares[name])


def before(old: ManagedOnlineDeployment) -> dict[str, str | None]:
    """The endpoint's tags that say what was live before."""
    tags = old.tags or {}
    return {PREVIOUS: tags.get(MODEL), PREVIOUS_ENVIRONMENT: tags.get(ENVIRONMENT)}
