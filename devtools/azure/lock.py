"""One roll-out at a time: a tag on the endpoint says whose it is, on whichever machine.

with held(workspace, "my-endpoint"): ...

A tag that a killed process of this machine left, or that is older than STALE, is taken over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from devtools.azure import endpoint
from devtools.azure.workspace import Workspace
from devtools.errors import KitError
from devtools.owner import is_alive, of_process

TAG = "deploying"
#: Seconds after which a roll-out that says nothing more is taken for dead.
STALE = 30 * 60


@contextmanager
def held(workspace: Workspace, name: str) -> Iterator[None]:
    """Hold the endpoint for a roll-out.

    Raises:
        KitError: somebody else's goes on.
    """
    mine = f"{of_process(os.getpid())}@{int(time.time())}"
    _refuse_others(workspace, name, mine)
    endpoint.change(workspace, name, **{TAG: mine})
    # of two that wrote at once, the later one has it
    _refuse_others(workspace, name, mine)
    try:
        yield
    finally:
        with suppress(KitError):
            endpoint.change(workspace, name, **{TAG: None})


def _refuse_others(workspace: Workspace, name: str, mine: str) -> None:
    told = (endpoint.require(workspace, name).tags or {}).get(TAG)
    if not told or told == mine:
        return
    owner, _, since = told.rpartition("@")
    age = time.time() - float(since) if since.isdecimal() else STALE
    if age < STALE and is_alive(owner):
        host, _, rest = owner.partition("/")
        raise KitError(
            f"endpoint {name}: another deployment of it goes on since {age / 60:.0f} min (process "
            f"{rest.partition('/')[0]} on {host}); wait until it is done"
        )
