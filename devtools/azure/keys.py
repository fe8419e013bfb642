"""The endpoint's keys: shown, or made anew.

rotate(workspace, "my-endpoint", "primary")
"""

from __future__ import annotations

from devtools.azure import endpoint
from devtools.azure.refusals import told
from devtools.azure.workspace import Workspace

#: Letters of a key that are shown where nobody asked for all of it.
SHOWN = 4
WHICH = ("primary", "secondary")


def both(workspace: Workspace, name: str, whole: bool = False) -> list[list[str]]:
    """Rows of which key and what it is; masked unless `whole`."""
    found = endpoint.keys(workspace, name)
    values = {"primary": found.primary_key, "secondary": found.secondary_key}
    return [[which, key if whole else f"{key[:SHOWN]}{'*' * 8}"] for which, key in values.items()]


def rotate(workspace: Workspace, name: str, which: str) -> None:
    """Make a key anew: the old one is refused from then on, the other key goes on."""
    with told(f"keys of endpoint {name}"):
        workspace.client.online_endpoints.begin_regenerate_keys(name, key_type=which).result()
