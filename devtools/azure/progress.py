"""Operations of the service that take minutes: waited for to their end, with a word now and then.

deployment = finished(lambda: client.online_deployments.begin_create_or_update(wanted), "deployment green")
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.core.polling import LROPoller

#: Seconds between two words about something that goes on.
WORD = 60.0


def finished(begin: Callable[[], LROPoller], what: str) -> Any:
    """Begin an operation, wait for its end, and return what came of it; callers are inside of `told`."""
    # (the SDK writes a dot a second to standard output, which belongs to the command's answer)
    with redirect_stdout(io.StringIO()):
        begun = time.monotonic()
        poller = begin()
        while not poller.done():
            poller.wait(WORD)
            if not poller.done():
                say(f"{what}: goes on ({time.monotonic() - begun:.0f} s)")
        return poller.result()


def say(line: str) -> None:
    """A line for whoever watches."""
    print(line, file=sys.stderr, flush=True)
