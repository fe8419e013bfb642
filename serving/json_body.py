"""Whether a body is JSON that everyone reads alike, before the routes and MLflow each parse it.

    check(b'{"temperature": 0, "temperature": 2}')     # Refused: temperature: is given twice

Python's own reader takes the last of two fields of a name, and gives up on deep nesting with an error of its own.
"""

from __future__ import annotations

import json
from typing import Any

from serving.errors import Refused

#: Characters of a field's name that are repeated in the refusal.
LONGEST_NAME = 80


def check(body: bytes) -> None:
    """Pass a body that is one JSON value.

    Raises:
        Refused: 400, and what it is instead.
    """
    try:
        json.loads(body.decode("utf-8-sig"), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body: is not UTF-8 from byte {error.start} on") from None
    except json.JSONDecodeError as error:
        what = "is not JSON" if body.strip() else "is empty, and must be JSON"
        raise Refused(400, f"the body: {what}; line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise Refused(400, "the body: is nested too deeply") from None
    except ValueError:
        raise Refused(400, "the body: holds a number of too many digits") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        # (`add` gives None; once over the names, of which there may be a hundred thousand)
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        name = twice[:LONGEST_NAME].encode(errors="replace").decode()
        raise Refused(400, f"{name}: is given twice", name)
    return fields
