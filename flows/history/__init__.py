"""Conversations, kept: open_history(os.environ) gives the store that the settings name."""

from collections.abc import Mapping
from pathlib import Path

from flows.history.store import History, Message, NotFound, Summary, Unavailable, new_id

__all__ = ["History", "Message", "NotFound", "Summary", "Unavailable", "new_id", "open_history"]

DEFAULT = "sqlite:history/conversations.db"


def open_history(environment: Mapping[str, str]) -> History:
    """The store that PHIKIT_HISTORY names: `sqlite:PATH` (unset: sqlite:history/conversations.db) or `cosmos`.

    Raises ValueError for a setting that cannot be used, Unavailable when the store cannot be opened.
    """
    setting = environment.get("PHIKIT_HISTORY", "").strip() or DEFAULT
    kind, _, path = setting.partition(":")
    if kind == "sqlite" and path:
        from flows.history.sqlite import SqliteHistory

        return SqliteHistory(Path(path))
    if setting == "cosmos":
        try:
            from flows.history.cosmos import CosmosHistory
        except ModuleNotFoundError as error:
            raise ValueError(
                f"PHIKIT_HISTORY cosmos: the package {error.name} is missing; install azure-cosmos and azure-identity "
                "(make setup-chat, or docker/chat.lock), or keep conversations in sqlite:PATH"
            ) from None
        return CosmosHistory.from_environment(environment)
    raise ValueError(f"PHIKIT_HISTORY {setting}: must be sqlite:PATH or cosmos")
