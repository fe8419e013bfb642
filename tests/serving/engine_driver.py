"""An engine, driven without a server: sequences in, tokens out, everything awaited."""

import queue
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.engine import Engine, Sampling, Step

SECONDS = 60


@dataclass
class Driver:
    """A running engine and what it delivered."""

    engine: Engine
    steps: queue.SimpleQueue[list[Step]] = field(default_factory=queue.SimpleQueue)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    number: int = 0

    def submit(self, prompt: Sequence[int], **sampling: object) -> int:
        self.number += 1
        self.tokens[self.number] = []
        self.engine.submit(self.number, prompt, Sampling(**{"max_tokens": 24, **sampling}))
        return self.number

    def take(self) -> None:
        """Wait for one delivery."""
        for step in self.steps.get(timeout=SECONDS):
            assert step.sequence not in self.ended, "a step after the last one"
            if step.token is not None:
                self.tokens[step.sequence].append(step.token)
            if step.finish:
                self.ended[step.sequence] = step.finish

    def wait(self, *numbers: int) -> list[list[int]]:
        """The tokens of some sequences, once they have ended."""
        while not set(numbers) <= set(self.ended):
            self.take()
        return [self.tokens[number] for number in numbers]

    def answer(self, prompt: Sequence[int], **sampling: object) -> list[int]:
        """One sequence, alone."""
        return self.wait(self.submit(prompt, **sampling))[0]

    def together(self, prompts: Mapping[object, Sequence[int]], **sampling: object) -> dict[object, list[int]]:
        """Several sequences at a time, no more than there are slots."""
        assert len(prompts) <= self.engine.slots
        numbers = {key: self.submit(prompt, **sampling) for key, prompt in prompts.items()}
        self.wait(*numbers.values())
        return {key: self.tokens[number] for key, number in numbers.items()}


@contextmanager
def driving(engine: Engine):
    driver = Driver(engine)
    engine.start(driver.steps.put)
    try:
        yield driver
    finally:
        engine.stop()
