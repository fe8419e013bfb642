"""From prompts to answers: a bounded queue in front of an engine, deadlines, stop strings, and what counts them.

    service = Service(engine, chat, settings, metrics)
    generations = service.open([Prompt(ids, Sampling(max_tokens=128))])
    async for piece in generations[0]: ...

Everything here runs on the event loop's thread; the engine's steps come over from its own.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from serving.call import current
from serving.chat import AnswerText, Chat
from serving.engine import Engine, EngineFailed, Finish, Sampling, Step
from serving.errors import Refused
from serving.metrics import Metrics
from serving.settings import Settings

#: Seconds that a prompt takes, before there has been one to measure.
FIRST_GUESS = 5.0


def dead() -> Refused:
    """What is said when the engine has died."""
    return Refused(503, "the engine has died; nothing is answered until the server is started again", retry_after=10)


@dataclass(frozen=True)
class Prompt:
    """A conversation as token ids, and how it is to be answered."""

    ids: list[int]
    sampling: Sampling
    stops: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """What it may grow to."""
        return len(self.ids) + self.sampling.max_tokens


class Generation:
    """One answer on its way: iterate it for its text as it comes; `finish` says afterwards how it ended."""

    def __init__(self, service: Service, number: int, prompt: Prompt, text: AnswerText) -> None:
        self.number = number
        self.prompt = prompt
        self.answer = text
        self.finish: Finish | None = None
        self.opened = time.monotonic()
        self.first: float | None = None
        """When its first token came, by the monotonic clock."""
        self._service = service
        self._pieces: list[str] = []
        self._news = asyncio.Event()
        self._refusal: Refused | None = None
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[str]:
        """Pieces of the answer's text.

        Raises:
            Refused: it was given up: past its deadline, or by a dead engine.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            pieces, self._pieces = self._pieces, []
            if pieces:
                yield "".join(pieces)
            if self._refusal:
                raise self._refusal
            if self._closed:
                return

    async def whole(self) -> str:
        """The whole answer's text."""
        return "".join([piece async for piece in self])

    @property
    def generated(self) -> int:
        """Tokens generated so far, the end token included."""
        return len(self.answer.tokens)

    def close(self) -> None:
        """Give up: its place in the queue, or its slot, becomes free. Nothing happens when it has ended."""
        if not self._closed:
            self._end("cancelled")
            self._service.forget(self)

    def fail(self, refusal: Refused) -> None:
        """Give up, and have whoever waits for the answer told why."""
        if not self._closed:
            self._refusal = refusal
            self.close()

    def take(self, step: Step) -> bool:
        """Take in what the engine generated; whether the answer is complete, though the engine would go on."""
        if self._closed:
            return False
        if step.token is not None:
            if self.first is None:
                self.first = time.monotonic()
            self._give(self.answer.push(step.token))
        if step.finish == "failed":
            self._refusal = dead()
        elif step.finish == "cancelled":
            # nobody here has given it up: the engine was stopped
            self._refusal = Refused(503, "the server is being stopped; try again", retry_after=10)
        elif step.finish:
            self._give(self.answer.rest())
        if self.answer.stopped:
            self._end("stop")
            return step.finish is None
        if step.finish:
            self._end(step.finish)
        return False

    def _give(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._news.set()

    def _end(self, finish: Finish) -> None:
        self.finish = finish
        self._closed = True
        self._news.set()


class Service:
    """The queue, and the engine behind it."""

    def __init__(self, engine: Engine, chat: Chat, settings: Settings, metrics: Metrics) -> None:
        self.engine = engine
        self.chat = chat
        self.settings = settings
        self._metrics = metrics
        self._numbers = itertools.count(1)
        self._waiting: deque[Generation] = deque()
        self._running: dict[int, Generation] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._reserved = 0
        self._started = False
        self._seconds = FIRST_GUESS
        metrics.watch(self)

    async def start(self) -> None:
        """Load the engine, off the event loop.

        Raises:
            EngineFailed: it cannot be loaded.
        """
        loop = asyncio.get_running_loop()

        def deliver(steps: list[Step]) -> None:
            loop.call_soon_threadsafe(self._take, steps)

        await asyncio.to_thread(self.engine.start, deliver)
        self._started = True

    @property
    def dead(self) -> bool:
        """Whether the engine has lived and does no more: only a new start mends that."""
        return self._started and not self.engine.alive

    @property
    def ready(self) -> bool:
        """Whether requests are answered: the model is loaded and the engine lives."""
        # (an engine lives while it warms up already, and would keep what it generates then to itself)
        return self._started and self.engine.alive

    @property
    def waiting(self) -> int:
        """Prompts in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._running)

    @property
    def reserved(self) -> int:
        """Tokens that the running sequences may grow to, of the engine's capacity."""
        return self._reserved

    @property
    def most_items(self) -> int:
        """Prompts of one request at most: more could never be taken in together."""
        return min(self.settings.max_items, self.engine.slots + self.settings.queue)

    def open(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Take prompts in, all or none of them.

        Raises:
            Refused: 429 when the queue is full, 503 when no engine is there, 408 when the client has gone.
        """
        call = current.get()
        if call.ended:
            # (MLflow's threads go on when their request is given up)
            raise Refused(408, "the client has gone")
        if not self.ready:
            raise Refused(503, "the model is not loaded; try again", retry_after=5)
        free = max(0, self.engine.slots - self.running - self.waiting)
        if self.waiting + len(prompts) - free > self.settings.queue:
            self._metrics.refused.labels(reason="queue").inc()
            raise Refused(
                429,
                f"the queue is full: {self.running} prompts in work, {self.waiting} waiting; try again later",
                retry_after=self._wait(),
            )
        loop = asyncio.get_running_loop()
        generations = []
        for prompt in prompts:
            generation = Generation(self, next(self._numbers), prompt, self.chat.stream(prompt.stops))
            left = self.settings.deadline - (time.monotonic() - call.arrived)
            self._timers[generation.number] = loop.call_later(left, generation.fail, self._too_late())
            generations.append(generation)
        call.generations += generations
        self._waiting += generations
        self._fill()
        return generations

    def forget(self, generation: Generation) -> None:
        """Free the place of one that was given up."""
        if generation.number in self._running:
            # its slot becomes free with the engine's last step
            self.engine.cancel(generation.number)
        else:
            self._waiting.remove(generation)
            self._count(generation)
        if self.engine.alive:
            self._fill()

    def _fill(self) -> None:
        """Start what waits, first come, first served, while there are slots and room in the cache."""
        while self._waiting and self.running < self.engine.slots and self.engine.alive:
            generation = self._waiting[0]
            if self._reserved + generation.prompt.tokens > self.engine.capacity and self._running:
                return
            try:
                self.engine.submit(generation.number, generation.prompt.ids, generation.prompt.sampling)
            except EngineFailed:
                # it died since it was asked
                break
            self._waiting.popleft()
            self._running[generation.number] = generation
            self._reserved += generation.prompt.tokens
        if not self.engine.alive:
            for generation in list(self._waiting):
                generation.fail(dead())

    def _take(self, steps: list[Step]) -> None:
        for step in steps:
            generation = self._running.get(step.sequence)
            if generation is None:
                continue
            first = generation.first is None
            if generation.take(step):
                self.engine.cancel(step.sequence)
            if first and generation.first is not None:
                self._metrics.first_token.observe(generation.first - generation.opened)
            if step.token is not None:
                self._metrics.generated.inc()
            if step.finish:
                del self._running[step.sequence]
                self._reserved -= generation.prompt.tokens
                self._count(generation)
        self._fill()

    def _count(self, generation: Generation) -> None:
        self._timers.pop(generation.number).cancel()
        seconds = time.monotonic() - generation.opened
        self._metrics.prompt.inc(len(generation.prompt.ids))
        self._metrics.finished.labels(finish=generation.finish).inc()
        if generation.first is not None and generation.finish in ("stop", "length"):
            # a moving average: what Retry-After is reckoned from
            self._seconds += 0.1 * (seconds - self._seconds)

    def _wait(self) -> int:
        """Seconds after which a slot of the queue is likely to be free."""
        return max(1, math.ceil(self._seconds / max(1, self.engine.slots)))

    def _too_late(self) -> Refused:
        return Refused(
            408,
            f"no whole answer within the deadline of {self.settings.deadline:g} s; ask for fewer tokens, or try again "
            "when the server has less to do",
        )
