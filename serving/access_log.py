"""The access log: one JSON object a request on standard output, without a word of what was asked or answered.

{"time": "2026-11-23T02:00:00.123Z", "request": "9f…", "method": "POST", "path": "/score", "status": 200,
 "seconds": 0.41, "first_token": 0.02, "prompt_tokens": 12, "generated_tokens": 9, "finish": ["stop"]}
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from serving.call import Call

log = logging.getLogger("phikit.access")

#: Probes ask every few seconds: they are logged when something is wrong.
QUIET = frozenset({"/ping", "/health", "/ready", "/metrics"})


def set_up() -> None:
    """Write the access log to standard output, everything else to standard error."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)


def write(call: Call, status: int) -> None:
    """Log one request that has ended."""
    if call.path in QUIET and status < 400:
        return
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request": call.id,
        "method": call.method,
        "path": call.path,
        "status": status,
        "seconds": round(call.seconds, 4),
    }
    if call.generations:
        firsts = [generation.first - call.arrived for generation in call.generations if generation.first]
        line |= {
            "first_token": round(min(firsts), 4) if firsts else None,
            "prompt_tokens": sum(len(generation.prompt.ids) for generation in call.generations),
            "generated_tokens": sum(generation.generated for generation in call.generations),
            "finish": [generation.finish for generation in call.generations],
        }
    log.info(json.dumps(line))
