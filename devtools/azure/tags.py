"""The tag that everything which the kit makes on Azure carries, so that it can be found and taken down.

made = [found for found in client.compute.list() if is_ours(found)]
"""

from __future__ import annotations

from collections.abc import Mapping

KEY, VALUE = "made-by", "phikit"


def ours(**more: str | None) -> dict[str, str]:
    """The kit's tag, and others that say something."""
    return {KEY: VALUE} | {name.replace("_", "-"): value for name, value in more.items() if value}


def is_ours(tags: Mapping[str, str] | None) -> bool:
    """Whether the kit made what carries these tags."""
    return (tags or {}).get(KEY) == VALUE
