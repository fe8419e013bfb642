"""What generates: the one seam between the routes and whatever runs the model.

Implemented by serving/transformers_engine.py and serving/onnx_engine.py; serving/engines.py chooses between them. An
engine knows token ids only: templates, texts, stop strings, queues and deadlines are its caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

#: Why a sequence ended: an end token, its `max_tokens`, `cancel`, or the engine itself.
Finish = Literal["stop", "length", "cancelled", "failed"]


class EngineFailed(Exception):
    """The engine cannot load its model, or died while serving."""


@dataclass(frozen=True)
class Sampling:
    """How one sequence is continued."""

    max_tokens: int
    """Tokens to generate at most, the end token included; 1 or more."""
    temperature: float = 0.0
    """0 is greedy: the likeliest token, always."""
    top_p: float = 1.0
    """Above 0: only the likeliest tokens that together reach this probability are drawn from."""
    seed: int | None = None
    """The same seed, prompt and settings draw the same tokens, whatever else is generated at the time."""


@dataclass(frozen=True)
class Step:
    """What one pass of the model brought one sequence."""

    sequence: int
    token: int | None = None
    """The token generated (an end token too); None where a sequence ended without one."""
    finish: Finish | None = None
    """Set on a sequence's last step, and on that one only."""


#: Takes the steps of one pass, all sequences together; called on the engine's own thread, and must return at once.
Deliver = Callable[[list[Step]], None]


class Engine(Protocol):
    """A loaded model that continues up to `slots` sequences at a time."""

    name: str
    """As PHIKIT_SERVE_ENGINE says it."""
    precision: str
    """Of the weights: float32, bfloat16, float16, int8, int4."""
    slots: int
    """Sequences that are generated together; the caller submits no more before one has ended."""
    context: int
    """Tokens of the longest sequence, prompt and answer together."""
    capacity: int
    """Tokens that all sequences together may hold; the caller keeps the sum of prompt plus `max_tokens` within it."""

    def start(self, deliver: Deliver) -> None:
        """Load the model, run one pass to warm it up, and start generating on a thread of its own. Blocks meanwhile.

        Raises EngineFailed when it cannot be loaded.
        """

    def submit(self, sequence: int, prompt: Sequence[int], sampling: Sampling) -> None:
        """Begin a sequence under an id of the caller's, unused so far. Never blocks; steps arrive through `deliver`.

        Raises EngineFailed when the engine is not alive.
        """

    def cancel(self, sequence: int) -> None:
        """End a sequence and free its slot: a last step `cancelled` arrives, unless it ends by itself before.

        Never blocks; an id that has ended, or never was, is ignored.
        """

    @property
    def alive(self) -> bool:
        """Whether it generates: false before `start`, after `stop`, and once its thread has died."""

    def stop(self) -> None:
        """End every sequence as `cancelled`, end the thread, free the memory. Idempotent."""
