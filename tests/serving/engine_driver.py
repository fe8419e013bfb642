"""An engine, driven without a server: sequences in, tokens out, everything awaited; and what every engine owes."""

import json
import queue
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.chat import Chat
from serving.engine import Engine, Sampling, Step
from serving.model_folder import ModelFolder
from tests.serving.models import HELD_OUT

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


def prompts_of(folder: ModelFolder, piece: int) -> dict[int, list[int]]:
    """Prompts of very different lengths, by number; number 99 is read in three pieces of at most `piece` tokens."""
    chat = Chat(folder)
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    found = {number: chat.prompt(json.loads(lines[number])["messages"][:-1]) for number in range(0, 50, 10)}
    long = [token for line in lines for token in chat.prompt(json.loads(line)["messages"][:-1])]
    return found | {99: long[: 2 * piece + 90]}


def the_same_alone_and_in_company(driver: Driver, prompts: Mapping[int, Sequence[int]]) -> None:
    """What else goes on changes no answer of a random model's."""
    alone = {key: driver.answer(prompt) for key, prompt in prompts.items()}
    assert len({tuple(tokens) for tokens in alone.values()}) == len(prompts)
    assert driver.together(prompts) == alone
    # begun while others are in the middle, and outliving them
    first = driver.submit(prompts[99], max_tokens=40)
    driver.take()
    rest = driver.together({key: prompts[key] for key in (0, 10, 20)}, max_tokens=10)
    assert rest == {key: alone[key][:10] for key in rest}
    assert driver.wait(first)[0][:24] == alone[99]
