"""The onnx engine: continuous batching on onnxruntime, for CPUs; torch and transformers are not needed.

    PHIKIT_SERVE_ENGINE=onnx python -m serving

One thread takes turns: a token for every sequence, then a piece of one new prompt, so that a long prompt never stalls
the others for longer than its piece takes. Sequences are the first rows of the cache, the prompt that is being read the
row after them; when one ends, the last row moves into its place.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.engine import Deliver, EngineFailed, Finish, Sampling, Step
from serving.model_folder import ModelFolder
from serving.onnx_session import OnnxSession, Shape
from serving.sampling import draw, generator
from serving.settings import Settings

log = logging.getLogger("phikit.engine")

#: Prompt tokens of one pass: about what a few dozen tokens of other sequences take.
PIECE = 256


@dataclass
class _Sequence:
    """A sequence in work; its row is its place in the list of those whose prompt is in."""

    number: int
    prompt: list[int]
    sampling: Sampling
    random: np.random.Generator
    length: int = 0
    """Tokens that its row holds."""
    tokens: list[int] = field(default_factory=list)
    """Generated so far; the last of them is not in the row yet."""


class OnnxEngine:
    """An engine (see serving/engine.py) over one of a model's ONNX exports."""

    name = "onnx"

    def __init__(self, model: ModelFolder, precision: str, settings: Settings) -> None:
        """Dimension the cache; nothing is loaded yet.

        Raises:
            EngineFailed: the export does not say what it needs.
        """
        self.precision = precision
        self._folder = model.onnx[precision]
        self._shape = Shape(self._folder)
        self._ends = model.ends
        room = int(settings.kv_memory * 2**30 // self._shape.token_bytes)
        self.context = min(settings.context, model.context, self._shape.context, max(2, room))
        self.slots = max(1, min(settings.slots, room // self.context))
        self.capacity = self.slots * self.context
        self._threads = settings.threads or len(os.sched_getaffinity(0))
        self._session: OnnxSession | None = None
        self._thread: threading.Thread | None = None
        self._news = threading.Condition()
        # under _news: what the caller asked for since the thread last looked
        self._submitted: deque[_Sequence] = deque()
        self._cancelled: set[int] = set()
        self._stopping = False
        self._alive = False
        # the thread's own
        self._active: list[_Sequence] = []
        self._reading: _Sequence | None = None
        self._deliver: Deliver = lambda steps: None

    def start(self, deliver: Deliver) -> None:
        """Load the export, warm it up, and begin; see Engine.start."""
        try:
            session = OnnxSession(self._folder, self._shape, self.slots, self.context, self._threads)
            session.prefill(0, [0], 0)
            session.decode([0], [1])
            session.release(0)
        except EngineFailed:
            raise
        except Exception as error:  # the library raises several, without a base of their own
            raise EngineFailed(f"{self._folder}: the first pass failed ({error}); export the model again") from error
        self._session = session
        self._deliver = deliver
        self._alive = True
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, sequence: int, prompt: Sequence[int], sampling: Sampling) -> None:
        """Begin a sequence; see Engine.submit."""
        if not prompt or len(prompt) + sampling.max_tokens > self.context:
            raise ValueError(f"{len(prompt)} + {sampling.max_tokens} tokens in a context of {self.context}")
        with self._news:
            if not self._alive:
                raise EngineFailed("the engine does not run")
            self._submitted.append(_Sequence(sequence, list(prompt), sampling, generator(sampling)))
            self._news.notify()

    def cancel(self, sequence: int) -> None:
        """End a sequence; see Engine.cancel."""
        with self._news:
            self._cancelled.add(sequence)
            self._news.notify()

    @property
    def alive(self) -> bool:
        """Whether it generates."""
        return self._alive and self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End everything; see Engine.stop."""
        with self._news:
            self._stopping = True
            self._news.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._session = None

    def _run(self) -> None:
        finish: Finish = "cancelled"
        try:
            while self._look():
                self._pass()
        except Exception:
            log.exception("the engine died")
            finish = "failed"
        with self._news:
            self._alive = False
            left = [*self._active, *([self._reading] if self._reading else []), *self._submitted]
            self._active, self._reading, self._submitted = [], None, deque()
        try:
            self._deliver([Step(sequence.number, finish=finish) for sequence in left])
        except Exception:
            # it may be what the engine died of
            log.exception("nobody takes what the engine delivers")

    def _look(self) -> bool:
        """Take in what was asked for; wait while there is nothing to do. False: it is time to stop."""
        with self._news:
            while not (self._active or self._reading or self._submitted or self._stopping):
                self._cancelled.clear()
                self._news.wait()
            if self._stopping:
                return False
            cancelled, self._cancelled = self._cancelled, set()
            gone = [each.number for each in self._submitted if each.number in cancelled]
            self._submitted = deque(each for each in self._submitted if each.number not in cancelled)
            if self._reading and self._reading.number in cancelled:
                gone.append(self._reading.number)
                self._session.release(len(self._active))
                self._reading = None
            if self._reading is None and self._submitted and len(self._active) < self.slots:
                self._reading = self._submitted.popleft()
        for row in reversed(range(len(self._active))):
            if self._active[row].number in cancelled:
                gone.append(self._active[row].number)
                self._free(row)
        if gone:
            self._deliver([Step(number, finish="cancelled") for number in gone])
        return True

    def _pass(self) -> None:
        """A token for every sequence whose prompt is in, and a piece of the prompt that is being read."""
        steps = []
        if self._active:
            tokens = [each.tokens[-1] for each in self._active]
            logits = self._session.decode(tokens, [each.length for each in self._active])
            for row, each in enumerate(self._active):
                each.length += 1
                steps.append(self._next(each, logits[row]))
        if each := self._reading:
            piece = each.prompt[each.length : each.length + PIECE]
            logits = self._session.prefill(len(self._active), piece, each.length)
            each.length += len(piece)
            if each.length == len(each.prompt):
                steps.append(self._next(each, logits))
                self._active.append(each)
                self._reading = None
        for row in reversed(range(len(self._active))):
            if self._finish(self._active[row]):
                self._free(row)
        self._deliver(steps)

    def _next(self, each: _Sequence, logits: np.ndarray) -> Step:
        token = draw(logits, each.sampling, each.random)
        each.tokens.append(token)
        return Step(each.number, token, self._finish(each))

    def _finish(self, each: _Sequence) -> Finish | None:
        if each.tokens[-1] in self._ends:
            return "stop"
        return "length" if len(each.tokens) >= each.sampling.max_tokens else None

    def _free(self, row: int) -> None:
        """Take a sequence out: the last one moves into its row, and the prompt that is being read into that one's."""
        last = len(self._active) - 1
        if row < last:
            self._session.move(last, row, self._active[last].length)
            self._active[row] = self._active[last]
        self._active.pop()
        if self._reading and self._reading.length:
            self._session.move(last + 1, last, self._reading.length)
        self._session.release(last + 1 if self._reading else last)
