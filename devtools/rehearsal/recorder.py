"""Every exchange with the emulator, one line of JSON each, with secrets masked before they are written.

    recorder = Recorder(home / "calls.jsonl")
    recorder.note(method="PUT", host=..., path=..., query=..., status=201, seconds=0.01, request=b"{}", response=b"{}")

phikit rehearsal calls --bodies prints them.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

FILE = "calls.jsonl"
MASK = "***"
#: A body beyond this is noted by its size alone.
LONGEST = 256 * 1024
#: Names of fields (JSON, forms, headers, variables of a job) whose texts are secrets.
SECRET = re.compile(
    r"(?i)((token|secret|password|passwd|assertion|signature|authorization|device_?code|user_?code|connection_?string)s?"
    r"|(primary|secondary|account|api|access|private|_)_?keys?|key_?value|^sig|pwd|passphrase|credential"
    r"|(^|_)(pass|pat))$"
)
#: Secrets inside of other texts: signatures of SAS addresses, JWTs, keys of headers.
INSIDE = (
    (re.compile(r"(?i)([?&;]sig=|\bsig=)[^&\s\"']+"), rf"\1{MASK}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), MASK),
    (re.compile(r"(?i)\b(bearer|basic|sharedkey) [\w.~+/=:-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"(?i)(accountkey=)[^;\s\"']+"), rf"\1{MASK}"),
    (re.compile(r"(enter the code )\S+"), rf"\1{MASK}"),
    (re.compile(r"(://[^/@\s:]*:)[^/@\s]+@"), rf"\1{MASK}@"),
)


def masked(value: Any, name: str = "") -> Any:
    """The same JSON value with its secrets replaced."""
    if isinstance(value, dict):
        # {"name": "HF_TOKEN", "value": ...}, an account's keys, a datastore's secrets, whatever they are called
        pair = next((value[key] for key in ("name", "key") if isinstance(value.get(key), str)), "")
        instead = {"value": pair} if SECRET.search(pair) else {}
        if "keyName" in value:
            instead = {"value": "secret"}
        if "secretsType" in value:
            instead = dict.fromkeys(value.keys() - {"secretsType"}, "secret")
        return {key: masked(inner, instead.get(key, str(key))) for key, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner, name) for inner in value]
    if not isinstance(value, str):
        return value
    if SECRET.search(name) and value:
        return MASK
    for pattern, instead in INSIDE:
        value = pattern.sub(instead, value)
    return value


def readable(content: bytes, content_type: str) -> Any:
    """A body as it is written down: JSON, a form's fields, a text, or how long it is."""
    if not content:
        return None
    if len(content) > LONGEST:
        return f"<{len(content)} bytes>"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return f"<{len(content)} bytes>"
    if "form-urlencoded" in content_type:
        return masked(dict(parse_qsl(text, keep_blank_values=True)))
    try:
        return masked(json.loads(text))
    except ValueError:
        return masked(text)


class Recorder:
    """Writes exchanges to a file, from any thread."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def note(
        self,
        *,
        method: str,
        host: str,
        path: str,
        query: str,
        status: int,
        seconds: float,
        request: tuple[bytes, str],
        response: tuple[bytes, str] | None,
        emulated: bool = True,
    ) -> None:
        """Write one exchange down.

        Args:
            request: content and its type.
            response: the same; None: a stream, which is not kept.
            emulated: whether some route answered.
        """
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": method,
            "host": host,
            "path": masked(path),
            "query": masked(dict(parse_qsl(query, keep_blank_values=True))),
            "status": status,
            "seconds": round(seconds, 3),
            "request": readable(*request),
            "response": "<stream>" if response is None else readable(*response),
            "emulated": emulated,
        }
        with self._lock, self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The exchanges written so far, oldest first."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            # (one is half written: the last one, or that of an emulator that was killed)
            with contextlib.suppress(ValueError):
                yield json.loads(line)
