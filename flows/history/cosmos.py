"""Conversations in Azure Cosmos DB for NoSQL: PHIKIT_HISTORY=cosmos, and the account in PHIKIT_COSMOS_URI.

    history = CosmosHistory.from_environment(os.environ)

One document a conversation, in the partition of its user. It is written back only if nobody else has written it since
it was read (its ETag says so), else read again and changed anew: writers at the same time lose nothing. Azure limits
a document to 2 MB.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.cosmos import ContainerProxy, CosmosClient, PartitionKey
from azure.cosmos.exceptions import (
    CosmosAccessConditionFailedError,
    CosmosHttpResponseError,
    CosmosResourceNotFoundError,
)

from flows.history.store import (
    Message,
    NotFound,
    Summary,
    Unavailable,
    as_title,
    check_messages,
    check_rating,
    check_text,
    check_user,
    new_id,
    title_of,
)

CONTAINER = "conversations"
DATABASE = "phikit"
#: Seconds in which a throttled or contended request is tried again.
PATIENCE = 10.0
#: Seconds for a connection to come about.
CONNECT = 5
#: Contents are found by reading the user's documents; an index of them would cost more than it saves.
INDEXING = {"indexingMode": "consistent", "includedPaths": [{"path": "/*"}], "excludedPaths": [{"path": "/messages/*"}]}

#: What a status means to people.
REASONS = {
    401: "refuses the key; check PHIKIT_COSMOS_KEY",
    403: "refuses access; check PHIKIT_COSMOS_KEY, the account's firewall, or your role in it",
    408: "took too long; try again in a moment",
    413: "keeps no more than 2 MB of one conversation; start another",
    429: "is overloaded (429); try again in a moment, or give it more throughput",
    503: "is not available now (503); try again in a moment",
}
Document = dict[str, Any]


class CosmosHistory:
    """The interface in store.py, over one container whose partition key is the user."""

    def __init__(
        self, uri: str, key: str = "", database: str = DATABASE, *, patience: float = PATIENCE, **options: Any
    ) -> None:
        """Connect; without a key, as whom DefaultAzureCredential finds. Raises Unavailable when that fails.

        With a key the database and the container are made when they are not there; a credential may not do that.
        `patience`: seconds for throttled and contended requests. `options` go to CosmosClient.
        """
        self._patience = patience
        self._where = f"Cosmos DB at {uri}"
        with self._told():
            self._client = CosmosClient(
                uri, key or _credential(), retry_backoff_max=patience, connection_timeout=CONNECT, **options
            )
            self._container = self._found(database, make=bool(key))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> CosmosHistory:
        """The account of PHIKIT_COSMOS_URI, _KEY and _DATABASE; raises ValueError without a URI."""
        uri = environment.get("PHIKIT_COSMOS_URI", "").strip()
        if not uri.startswith(("https://", "http://")):
            raise ValueError(
                "PHIKIT_COSMOS_URI: is not set to an address; give the account's, https://NAME.documents.azure.com:443/"
            )
        key = environment.get("PHIKIT_COSMOS_KEY", "").strip()
        return cls(uri, key, environment.get("PHIKIT_COSMOS_DATABASE", "").strip() or DATABASE)

    def start(self, user: str, title: str = "", messages: Sequence[Message] = ()) -> str:
        """See History."""
        check_user(user)
        check_messages(messages)
        document = {
            "id": new_id(),
            "user": user,
            "title": as_title(title),
            "updated": time.time(),
            "messages": [],
        }
        _add(document, messages)
        with self._told():
            self._container.create_item(document)
        return document["id"]

    def list(self, user: str, limit: int = 50, before: float | None = None, search: str = "") -> list[Summary]:
        """See History."""
        check_user(user)
        check_text("search", search)
        query = f"SELECT TOP {max(0, int(limit))} c.id, c.title, c.updated, c.length FROM c WHERE c.user = @user"
        parameters: dict[str, Any] = {"@user": user}
        if before is not None:
            query += " AND c.updated < @before"
            parameters["@before"] = before
        if search.strip():
            query += (
                " AND (CONTAINS(LOWER(c.title), @search)"
                " OR EXISTS (SELECT VALUE m FROM m IN c.messages WHERE CONTAINS(LOWER(m.content), @search)))"
            )
            parameters["@search"] = search.strip().lower()
        query += " ORDER BY c.updated DESC"
        with self._told():
            rows = self._container.query_items(
                query,
                parameters=[{"name": name, "value": value} for name, value in parameters.items()],
                partition_key=user,
            )
            return [Summary(row["id"], row["title"], row["updated"], row["length"]) for row in rows]

    def open(self, user: str, conversation: str) -> list[Message]:
        """See History."""
        check_user(user)
        with self._told():
            return [Message(**message) for message in self._read(user, conversation)["messages"]]

    def append(self, user: str, conversation: str, *messages: Message) -> None:
        """See History."""
        check_messages(messages)
        self._change(user, conversation, lambda document: _add(document, messages))

    def truncate(self, user: str, conversation: str, message_id: str, *instead: Message) -> None:
        """See History."""
        check_messages(instead)
        found = False

        def cut(document: Document) -> None:
            nonlocal found
            try:
                del document["messages"][_index(document, message_id) :]
            except NotFound:
                if not found:
                    raise
                # it was there a moment ago: the request got through, and its answer was lost
            found = True
            _add(document, instead)

        self._change(user, conversation, cut)

    def rate(self, user: str, conversation: str, message_id: str, rating: int) -> None:
        """See History."""
        check_rating(rating)

        def note(document: Document) -> None:
            document["messages"][_index(document, message_id)]["rating"] = rating

        self._change(user, conversation, note)

    def rename(self, user: str, conversation: str, title: str) -> None:
        """See History."""
        title = as_title(title)
        if not title:
            raise ValueError("title: is empty; give one")
        self._change(user, conversation, lambda document: document.update(title=title))

    def delete(self, user: str, conversation: str) -> None:
        """See History."""
        check_user(user)
        _check_id(conversation)
        with self._told(), _missing(conversation):
            self._container.delete_item(conversation, user)

    def close(self) -> None:
        """See History."""
        self._client.__exit__()

    def _found(self, database: str, make: bool) -> ContainerProxy:
        container = self._client.get_database_client(database).get_container_client(CONTAINER)
        try:
            container.read()
            return container
        except CosmosResourceNotFoundError:
            if not make:
                raise Unavailable(
                    f"{self._where}: has no container {database}/{CONTAINER}; make it, with the partition key /user"
                ) from None
        made = self._client.create_database_if_not_exists(database)
        return made.create_container_if_not_exists(CONTAINER, PartitionKey("/user"), indexing_policy=INDEXING)

    def _read(self, user: str, conversation: str) -> Document:
        _check_id(conversation)
        with _missing(conversation):
            return self._container.read_item(conversation, user)

    def _change(self, user: str, conversation: str, change: Callable[[Document], None]) -> None:
        """Read, change and write back, as often as somebody else has written in between."""
        check_user(user)
        end, pause = time.monotonic() + self._patience, 0.01
        with self._told():
            while True:
                document = self._read(user, conversation)
                change(document)
                try:
                    with _missing(conversation):
                        self._container.replace_item(
                            conversation,
                            document,
                            etag=document["_etag"],
                            match_condition=MatchConditions.IfNotModified,
                        )
                    return
                except CosmosAccessConditionFailedError:
                    if time.monotonic() > end:
                        raise Unavailable(f"{self._where}: others keep writing this conversation; try again") from None
                # at random, or the same writers meet again
                time.sleep(random.uniform(0, pause))
                pause = min(2 * pause, 0.5)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Azure's errors become Unavailable, in one line without the request."""
        try:
            yield
        except CosmosHttpResponseError as error:
            reason = REASONS.get(error.status_code or 0, f"answers {error.status_code}; try again in a moment")
            raise Unavailable(f"{self._where}: {reason}") from error
        except ClientAuthenticationError as error:
            raise Unavailable(
                f"{self._where}: no credential is found; set PHIKIT_COSMOS_KEY, or log in with `az login`"
            ) from error
        except AzureError as error:
            raise Unavailable(f"{self._where}: cannot be reached; check PHIKIT_COSMOS_URI and the network") from error


def _credential() -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


@contextlib.contextmanager
def _missing(conversation: str) -> Iterator[None]:
    try:
        yield
    except CosmosResourceNotFoundError:
        raise NotFound(f"conversation {conversation}: there is none of this name") from None


def _check_id(conversation: str) -> None:
    # any other text would be part of an address
    if not re.fullmatch("[0-9a-f]{32}", conversation):
        raise NotFound(f"conversation {conversation}: there is none of this name")


def _index(document: Document, message_id: str) -> int:
    for index, message in enumerate(document["messages"]):
        if message["id"] == message_id:
            return index
    raise NotFound(f"message {message_id}: the conversation has none of this name")


def _add(document: Document, messages: Sequence[Message]) -> None:
    """Messages at the end; its title, its count and its place in the list follow."""
    kept = {message["id"] for message in document["messages"]}
    # a request that was sent again after its answer got lost adds nothing
    new = {message.id: message for message in reversed(messages) if message.id not in kept}
    document["messages"] += [asdict(message) for message in reversed(new.values())]
    document["title"] = document["title"] or title_of(messages)
    document["length"] = len(document["messages"])
    document["updated"] = max(time.time(), document["updated"] + 1e-6)
