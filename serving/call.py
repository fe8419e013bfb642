"""One HTTP request on its way through the server: what belongs to it, and how all of that ends when its client goes.

    from serving.call import current

The gate (serving/gate.py) begins a call; the service registers with it what it generates; the access log reads it.
"""

from __future__ import annotations

import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.service import Generation


@dataclass
class Call:
    """A request, and what was generated for it."""

    method: str
    path: str
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    arrived: float = field(default_factory=time.monotonic)
    generations: list[Generation] = field(default_factory=list)
    format: str = "inputs"
    """Field of the body that holds the conversations, where MLflow takes it apart."""
    ended: bool = False
    """Nobody waits for an answer any more."""
    refusal: Exception | None = None
    """Why it was refused, where a library in between would turn that into words of its own."""

    @property
    def seconds(self) -> float:
        """Since it arrived."""
        return time.monotonic() - self.arrived

    def end(self) -> None:
        """Free what still waits or generates: the client has gone, or has its answer."""
        self.ended = True
        for generation in self.generations:
            generation.close()


#: The call that the running task, or a thread that it started, works for.
current: ContextVar[Call] = ContextVar("call")
