"""The endpoint's keys: shown, or made anew.

rotate(workspace, "my-endpoint", ("secondary", "primary"))

Either key is let in. Who is to notice nothing of a rotation is given the secondary one first, then the primary one is
made anew, and the other way round the next time.
"""

from __future__ import annotations

from collections.abc import Sequence

from devtools.azure import endpoint
from devtools.azure.progress import finished, say
from devtools.azure.refusals import told
from devtools.azure.workspace import Workspace
from devtools.errors import KitError

#: Letters of a key that are shown where nobody asked for all of it.
SHOWN = 4
#: Both, in the order in which they are made anew: the one that clients of the kit have is the last.
BOTH = ("secondary", "primary")


def both(workspace: Workspace, name: str, whole: bool = False) -> list[list[str]]:
    """Rows of which key and what it is; masked unless `whole`."""
    values = _values(workspace, name)
    return [[which, key if whole else f"{key[:SHOWN]}{'*' * 8}"] for which, key in values.items()]


def rotate(workspace: Workspace, name: str, which: Sequence[str]) -> None:
    """Make keys anew, one after the other: an old one is refused from then on, the others go on.

    Raises:
        KitError: the service refuses it, or leaves a key as it was.
    """
    for key in which:
        before = _values(workspace, name)[key]
        endpoint.settled(workspace, name)
        with told(f"keys of endpoint {name}"):
            client = workspace.client.online_endpoints
            finished(lambda: client.begin_regenerate_keys(name, key_type=key), f"{key} key")  # noqa: B023
        if _values(workspace, name)[key] == before:
            raise KitError(f"endpoint {name}: the {key} key is what it was; give the same command again")
        say(f"endpoint {name}: the {key} key is a new one; clients with the old one are refused and fetch it anew")


def _values(workspace: Workspace, name: str) -> dict[str, str]:
    found = endpoint.keys(workspace, name)
    return {"primary": found.primary_key, "secondary": found.secondary_key}
