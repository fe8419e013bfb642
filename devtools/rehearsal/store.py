"""What the emulator knows: JSON documents by kind and key, in one SQLite file that survives a restart.

store.put("computes", "cpu-cluster", {...})
store.all("deployments", "my-endpoint/")
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Document = dict[str, Any]


class Store:
    """Documents of all resource types. Keys of things in things are paths: `endpoint/deployment`.

    Names on Azure do not tell upper from lower case, so keys do not either; what was put comes back as it was. Any
    number of threads and processes may use one file.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._database = sqlite3.connect(file, timeout=30, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS documents (number INTEGER PRIMARY KEY, kind TEXT NOT NULL,"
            " key TEXT NOT NULL COLLATE NOCASE, body TEXT NOT NULL, UNIQUE (kind, key))"
        )

    def get(self, kind: str, key: str) -> Document | None:
        """The document, or None."""
        row = self._run("SELECT body FROM documents WHERE kind = ? AND key = ?", kind, key).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, kind: str, key: str, body: Document) -> Document:
        """Write a document, new or in place of the one there; returns it."""
        self._run(
            "INSERT INTO documents (kind, key, body) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
            kind,
            key,
            json.dumps(body),
        )
        return body

    def keep(self, kind: str, key: str, body: Document) -> Document:
        """The document that is there, or this one, written by whoever asks first."""
        self._run("INSERT OR IGNORE INTO documents (kind, key, body) VALUES (?, ?, ?)", kind, key, json.dumps(body))
        return self.get(kind, key) or body

    def change(self, kind: str, key: str, change: Callable[[Document], Document | None]) -> Document | None:
        """Change a document in place, alone: `change` gets it and changes it, or returns another one.

        Returns what is there afterwards; None, and `change` is not called, where there is no such document.
        """
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                body = self.get(kind, key)
                if body is not None:
                    body = self.put(kind, key, change(body) or body)
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
        return body

    def delete(self, kind: str, key: str) -> bool:
        """Remove a document; whether there was one."""
        return self._run("DELETE FROM documents WHERE kind = ? AND key = ?", kind, key).rowcount > 0

    def all(self, kind: str, below: str = "") -> list[tuple[str, Document]]:
        """Keys and documents of a kind, oldest first; `below`: those whose key begins so (`endpoint/`)."""
        rows = self._run("SELECT key, body FROM documents WHERE kind = ? ORDER BY number", kind).fetchall()
        return [(key, json.loads(body)) for key, body in rows if key.lower().startswith(below.lower())]

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _run(self, statement: str, *values: str) -> sqlite3.Cursor:
        with self._lock:
            return self._database.execute(statement, values)
