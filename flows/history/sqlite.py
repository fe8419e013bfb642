"""Conversations in one SQLite file, for this machine: several threads and several processes may use it at once.

    history = SqliteHistory(Path("history/conversations.db"))

Write-ahead logging: readers never wait for a writer, writers wait for each other, and what a method has done is on the
disk when it returns. The file must not lie on a network drive, where such logs do not work.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    details_json,
    new_id,
    title_of,
)

#: Kept in the file (PRAGMA user_version); another number is another kit's file.
VERSION = 1
#: Seconds that a writer waits for others.
PATIENCE = 5.0
#: Seconds between two changes of one user, at least: `updated` tells a list's pages apart.
TICK = 1e-6

SCHEMA = Path(__file__).with_name("schema.sql")

#: What went wrong, for people, by the first part of SQLite's own name for it.
REASONS = {
    "SQLITE_BUSY": "is locked by another program; try again in a moment",
    "SQLITE_LOCKED": "is locked by another program; try again in a moment",
    "SQLITE_FULL": "cannot be written: the disk is full; free some space",
    "SQLITE_READONLY": "cannot be written; check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "cannot be opened; check the permissions of the file and its folder",
    "SQLITE_PERM": "cannot be opened; check the permissions of the file and its folder",
    "SQLITE_IOERR": "cannot be read or written: the disk failed, or it is full",
    "SQLITE_NOTADB": "is no SQLite file; name another in PHIKIT_HISTORY",
    "SQLITE_CORRUPT": "is damaged; move it away, or put a copy back",
}


class SqliteHistory:
    """The interface in store.py, over a file that is made when it is not there yet."""

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        """Open the file; raises Unavailable when it cannot be used. `patience`: seconds to wait for other writers."""
        self._path = path
        self._patience = patience
        # one for each thread that is at work: a thread that waits for the lock holds up no other
        self._idle: list[sqlite3.Connection] = []
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                # what people write is their own; SQLite gives its log the same permissions
                path.touch(mode=0o600)
        except OSError as error:
            raise Unavailable(f"{path}: cannot be made ({error.strerror}); name another in PHIKIT_HISTORY") from None
        with self._connection() as connection:
            self._prepare(connection)

    def start(self, user: str, title: str = "", messages: Sequence[Message] = ()) -> str:
        """See History."""
        check_user(user)
        check_messages(messages)
        conversation, title = new_id(), as_title(title)
        with self._connection() as connection, _writing(connection):
            connection.execute(
                "INSERT INTO conversations (id, user, title, updated) VALUES (?, ?, ?, ?)",
                (conversation, user, title, _now(connection, user)),
            )
            _add(connection, conversation, messages)
        return conversation

    def list(self, user: str, limit: int = 50, before: float | None = None, search: str = "") -> list[Summary]:
        """See History."""
        check_user(user)
        check_text("search", search)
        query, values = "SELECT id, title, updated, messages FROM conversations AS c WHERE user = ?", [user]
        if before is not None:
            query += " AND updated < ?"
            values.append(before)
        if search.strip():
            query += (
                " AND (holds(title, ?) OR EXISTS"
                " (SELECT 1 FROM messages WHERE conversation = c.id AND holds(content, ?)))"
            )
            values += [search.strip().lower()] * 2
        with self._connection() as connection:
            rows = connection.execute(f"{query} ORDER BY updated DESC LIMIT ?", (*values, max(0, limit))).fetchall()
        return [Summary(*row) for row in rows]

    def open(self, user: str, conversation: str) -> list[Message]:
        """See History."""
        check_user(user)
        with self._connection() as connection, _reading(connection):
            _require(connection, user, conversation)
            rows = connection.execute(
                "SELECT id, role, content, created, rating, details FROM messages WHERE conversation = ?"
                " ORDER BY position",
                (conversation,),
            ).fetchall()
        return [Message(*row[:5], json.loads(row[5])) for row in rows]

    def append(self, user: str, conversation: str, *messages: Message) -> None:
        """See History."""
        check_user(user)
        check_messages(messages)
        with self._changing(user, conversation) as connection:
            _add(connection, conversation, messages)

    def truncate(self, user: str, conversation: str, message_id: str, *instead: Message) -> None:
        """See History."""
        check_user(user)
        check_messages(instead)
        with self._changing(user, conversation) as connection:
            position = _position(connection, conversation, message_id)
            connection.execute(
                "DELETE FROM messages WHERE conversation = ? AND position >= ?", (conversation, position)
            )
            _add(connection, conversation, instead)

    def rate(self, user: str, conversation: str, message_id: str, rating: int) -> None:
        """See History."""
        check_user(user)
        check_rating(rating)
        # a thumb is no new word: the conversation keeps its place in the list
        with self._connection() as connection, _writing(connection):
            _require(connection, user, conversation)
            position = _position(connection, conversation, message_id)
            connection.execute("UPDATE messages SET rating = ? WHERE position = ?", (rating, position))

    def rename(self, user: str, conversation: str, title: str) -> None:
        """See History."""
        check_user(user)
        title = as_title(title)
        if not title:
            raise ValueError("title: is empty; give one")
        with self._connection() as connection, _writing(connection):
            _require(connection, user, conversation)
            connection.execute("UPDATE conversations SET title = ? WHERE id = ?", (title, conversation))

    def delete(self, user: str, conversation: str) -> None:
        """See History."""
        check_user(user)
        with self._connection() as connection, _writing(connection):
            _require(connection, user, conversation)
            connection.execute("DELETE FROM conversations WHERE id = ?", (conversation,))

    def close(self) -> None:
        """See History."""
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that no other thread uses meanwhile; SQLite's errors become Unavailable."""
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                # (one that could not even roll back is of no use any more)
                if connection.in_transaction:
                    connection.close()
                else:
                    self._idle.append(connection)
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            reason = REASONS.get("_".join(name.split("_")[:2]), f"cannot be used ({error})")
            raise Unavailable(f"{self._path}: {reason}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=self._patience, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_function("holds", 2, lambda text, part: part in text.lower(), deterministic=True)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Lay out a new file; another process may be doing the same."""
        end = time.monotonic() + self._patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # the one statement for which SQLite's own waiting does not hold
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
        if _version(connection) == 0:
            with _writing(connection):
                if _version(connection) == 0:
                    for statement in SCHEMA.read_text(encoding="utf-8").split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {VERSION}")
        if (found := _version(connection)) != VERSION:
            raise Unavailable(
                f"{self._path}: has version {found} of the conversations' schema and this kit writes {VERSION}; "
                "use the kit that wrote it, or name another file in PHIKIT_HISTORY"
            )

    @contextlib.contextmanager
    def _changing(self, user: str, conversation: str) -> Iterator[sqlite3.Connection]:
        """One transaction over a conversation of the user; its place in the list follows."""
        with self._connection() as connection, _writing(connection):
            _require(connection, user, conversation)
            yield connection
            connection.execute(
                "UPDATE conversations SET updated = ? WHERE id = ?", (_now(connection, user), conversation)
            )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # a full disk may have ended it already
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _writing(connection: sqlite3.Connection) -> contextlib.AbstractContextManager[None]:
    """A transaction that holds the write lock from its beginning: what it reads stays true until it commits."""
    return _transaction(connection, "BEGIN IMMEDIATE")


def _reading(connection: sqlite3.Connection) -> contextlib.AbstractContextManager[None]:
    return _transaction(connection, "BEGIN")


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _now(connection: sqlite3.Connection, user: str) -> float:
    (last,) = connection.execute("SELECT max(updated) FROM conversations WHERE user = ?", (user,)).fetchone()
    return time.time() if last is None else max(time.time(), last + TICK)


def _require(connection: sqlite3.Connection, user: str, conversation: str) -> None:
    query = "SELECT 1 FROM conversations WHERE id = ? AND user = ?"
    if connection.execute(query, (conversation, user)).fetchone() is None:
        raise NotFound(f"conversation {conversation}: there is none of this name")


def _add(connection: sqlite3.Connection, conversation: str, messages: Sequence[Message]) -> None:
    """Messages at the end of a conversation, which may get its title and gets its count from them."""
    connection.executemany(
        "INSERT INTO messages (conversation, id, role, content, created, rating, details)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (conversation, id) DO NOTHING",
        [(conversation, m.id, m.role, m.content, m.created, m.rating, details_json(m.details)) for m in messages],
    )
    connection.execute(
        "UPDATE conversations SET title = iif(title = '', ?, title), messages ="
        " (SELECT count(*) FROM messages WHERE conversation = conversations.id) WHERE id = ?",
        (title_of(messages), conversation),
    )


def _position(connection: sqlite3.Connection, conversation: str, message_id: str) -> int:
    query = "SELECT position FROM messages WHERE conversation = ? AND id = ?"
    row = connection.execute(query, (conversation, message_id)).fetchone()
    if row is None:
        raise NotFound(f"message {message_id}: the conversation has none of this name")
    return row[0]
