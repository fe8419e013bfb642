"""One answer in the making: what has come of each model's, and how whoever waits for it stops.

turn = Turn()
turn.stop()
"""

from __future__ import annotations

import asyncio


class Stream:
    """One model's answer while it comes."""

    def __init__(self) -> None:
        self.text = ""
        self.error, self.hopeless = "", False
        self.ended = False

    def ending(self) -> dict[str, bool]:
        """Among an answer's details, whether it was broken off."""
        return {} if self.ended and not self.error else {"stopped": True}


class Turn:
    """A tab's wait for an answer: it can be stopped, or left behind."""

    def __init__(self) -> None:
        self.changed, self.stopped, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.left = False

    def stop(self) -> None:
        """No more of the answer is waited for."""
        self.stopped.set()
        self.changed.set()
