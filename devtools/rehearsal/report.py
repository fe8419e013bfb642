"""What the rehearsal says of itself, for people: the calls that were made, what it refuses, what it does not know.

for call in calls(home): print(line(call, bodies=True))
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from devtools.errors import KitError
from devtools.rehearsal import ACCOUNT, BLOB_HOST, recorder, workspace_id
from devtools.rehearsal.refusals import Refusals
from devtools.rehearsal.store import Store

DATABASE = "state.db"
REFUSED_HOSTS = "refused-hosts"
STORAGE_LOG = "azurite.log"
#: A line of Azurite's log: when, what, what came of it.
STORAGE_LINE = re.compile(r'\S+ - - \[(?P<when>[^]]+)\] "(?P<method>[A-Z]+) (?P<url>\S+) HTTP/1.1" (?P<status>\d+)')
#: Characters of a query's value.
LONGEST = 60
WHEN = "%d/%b/%Y:%H:%M:%S %z"


@contextmanager
def opened(home: Path) -> Iterator[Store]:
    """The store of a home, whether its emulator runs or not; raises KitError when it cannot be read or written."""
    try:
        store = Store(home / DATABASE)
        try:
            yield store
        finally:
            store.close()
    except (OSError, sqlite3.Error) as error:
        raise KitError(f"{home / DATABASE}: {error}") from error


@contextmanager
def refusals(home: Path) -> Iterator[Refusals]:
    """What is refused there."""
    with opened(home) as store:
        yield Refusals(store)


def refused(refusals: Refusals) -> list[str]:
    """Each refusal that is on, a line."""
    found = refusals.all()
    if not found:
        return ["nothing is refused"]
    return [f"refused: {name}{_options(options)}" for name, options in found.items()]


def status(home: Path) -> list[str]:
    """What is refused, how much was said, and what nothing here answers for."""
    found = calls(home)
    unknown = Counter(
        f"{call['method']} https://{call['host']}{_short(call['path'])}" for call in found if not call["emulated"]
    )
    with opened(home) as store:
        lines = [*refused(Refusals(store)), f"{len(found)} calls were made"]
        hosts = {key: body["times"] for key, body in store.all(REFUSED_HOSTS)}
    lines += [f"not emulated: {call} ({times} times)" for call, times in unknown.items()]
    return lines + [f"host refused: {host} ({times} times)" for host, times in hosts.items()]


def calls(home: Path) -> list[dict[str, Any]]:
    """Every exchange so far, oldest first; those with the storage are known without their bodies."""
    found = [*recorder.read(home / recorder.FILE), *_storage(home / STORAGE_LOG)]
    return sorted(found, key=lambda call: call["time"])


def line(call: dict[str, Any], bodies: bool) -> str:
    """One call, for people."""
    when = datetime.fromisoformat(call["time"]).astimezone().strftime("%H:%M:%S")
    query = "&".join(f"{name}={_cut(value)}" for name, value in call["query"].items())
    address = f"{call['host']}{_short(call['path'])}" + (f"?{query}" if query else "")
    lines = [f"{when}  {call['status']}  {call['method']:<6} {address}"]
    if bodies:
        for mark, body in (("->", call["request"]), ("<-", call["response"])):
            if body is not None:
                text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
                lines += [
                    f"          {mark if not number else '  '} {row}" for number, row in enumerate(text.split("\n"))
                ]
    return "\n".join(lines)


def _storage(log: Path) -> Iterator[dict[str, Any]]:
    if not log.is_file():
        return
    with log.open(encoding="utf-8", errors="replace") as lines:
        for match in filter(None, map(STORAGE_LINE.match, lines)):
            url = urlsplit(match["url"])
            # by the account's path asks the emulator itself, by the account's host everybody else
            if url.path.startswith(f"/{ACCOUNT}/"):
                continue
            yield {
                "time": datetime.strptime(match["when"], WHEN).isoformat(timespec="milliseconds"),
                "method": match["method"],
                "host": BLOB_HOST,
                "path": unquote(url.path),
                "query": recorder.masked(dict(parse_qsl(url.query, keep_blank_values=True))),
                "status": int(match["status"]),
                "seconds": None,
                "request": None,
                "response": None,
                "emulated": True,
            }


def _short(path: str) -> str:
    """A path with W for the workspace's."""
    return re.sub(re.escape(workspace_id()), "/W", path, flags=re.IGNORECASE)


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}..."


def _options(options: dict[str, Any]) -> str:
    said = {key: value for key, value in options.items() if value not in (None, "")}
    return "".join(f" --{key} {value}" for key, value in said.items())
