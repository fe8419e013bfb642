"""What quantising costs: perplexity of the held-out answers, and whether the model still says the same.

    quality = compare(model, float32_folder, int4_folder, questions)

Both exports are run by the engine that will serve them. Perplexity is that of the reference answers, fed token by token
after their prompts; agreement is the share of greedy answers that are the same, word for word, in both.
"""

from __future__ import annotations

import dataclasses
import json
import math
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.chat import Chat
from serving.engine import EngineFailed, Sampling, Step
from serving.errors import BadInput, Refused
from serving.model_folder import ModelFolder
from serving.onnx_engine import PIECE, OnnxEngine
from serving.onnx_session import OnnxSession, Shape
from serving.settings import Settings

#: Tokens of an answer that are generated to be compared.
ANSWER = 64
#: Tokens of a conversation that is taken, its prompt and either answer: as much as the server takes by default.
LONGEST = 4096
SLOTS = 16
#: GiB of cache, so that even a large model's longest conversation fits.
CACHE = 8.0


@dataclass(frozen=True)
class Question:
    """A conversation that waits for its last answer, and that answer, as token ids."""

    prompt: list[int]
    answer: list[int]

    @property
    def length(self) -> int:
        """Tokens that it takes in the cache at most, with either answer."""
        return len(self.prompt) + max(len(self.answer), ANSWER)


@dataclass(frozen=True)
class Quality:
    """A quantised export against the float32 one, over the same questions."""

    questions: int
    answer_tokens: int
    perplexity_float32: float
    perplexity: float
    perplexity_ratio: float
    """At most the limit: 1 is no loss."""
    agreement: float
    """Share of greedy answers that are identical."""
    agreeing_tokens: float
    """Mean share of an answer's tokens before the first that differs."""
    seconds: float

    def findings(self, most_ratio: float, least_agreement: float) -> list[str]:
        """What lies past the limits."""
        found = []
        if not self.perplexity_ratio <= most_ratio:
            found.append(
                f"perplexity is {self.perplexity_ratio:.3f} times float32's, at most {most_ratio:g} is allowed"
            )
        if not self.agreement >= least_agreement:
            found.append(
                f"{self.agreement:.1%} of {self.questions} answers are float32's, {least_agreement:.1%} must be"
            )
        return found


def read_questions(file: Path, chat: Chat, context: int, most: int) -> list[Question]:
    """The first `most` conversations of a JSONL file that end with an answer and fit the context.

    Raises:
        BadInput: the file, and each line of it, that cannot be used.
    """
    findings: list[str] = []
    found: list[Question] = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{file}: cannot be read ({error}); name a JSONL file of conversations") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            messages = json.loads(line)["messages"]
            if messages[-1]["role"] != "assistant":
                raise ValueError
            question = Question(*chat.question(messages))
        except (ValueError, KeyError, IndexError, TypeError, Refused):
            findings.append(f"{file}:{number}: is no conversation that ends with an answer; prepare the file first")
            continue
        if question.answer and question.length <= min(context, LONGEST):
            found.append(question)
    if findings:
        raise BadInput(findings)
    if not found:
        raise BadInput(f"{file}: no conversation in it fits {min(context, LONGEST)} tokens; name another one")
    return found[:most]


def compare(
    model: ModelFolder, reference: Path, quantised: Path, questions: Sequence[Question], threads: int = 0
) -> Quality:
    """Run both exports over the questions.

    Raises:
        EngineFailed: one of them does not run.
    """
    began = time.monotonic()
    longest = max(each.length for each in questions)
    settings = Settings(slots=SLOTS, context=longest, threads=threads, kv_memory=CACHE)
    losses, answers = [], []
    for folder in (reference, quantised):
        engine = OnnxEngine(dataclasses.replace(model, onnx={"it": folder}), "it", settings)
        losses.append(_loss(folder, questions, engine.slots, engine.context, threads))
        answers.append(_answers(engine, questions))
    tokens = sum(len(each.answer) for each in questions)
    plain, rounded = (math.exp(loss / tokens) if math.isfinite(loss) else math.inf for loss in losses)
    pairs = list(zip(*answers, strict=True))
    return Quality(
        questions=len(questions),
        answer_tokens=tokens,
        perplexity_float32=plain,
        perplexity=rounded,
        perplexity_ratio=rounded / plain,
        agreement=sum(a == b for a, b in pairs) / len(pairs),
        agreeing_tokens=sum(_same(a, b) for a, b in pairs) / len(pairs),
        seconds=time.monotonic() - began,
    )


def _loss(folder: Path, questions: Sequence[Question], slots: int, context: int, threads: int) -> float:
    """Sum of the answers' negative log-likelihoods, in nats."""
    session = OnnxSession(folder, Shape(folder), slots, context, threads)
    total = 0.0
    # longest answers first: rows that are done are always the last ones
    ordered = sorted(questions, key=lambda each: -len(each.answer))
    for begin in range(0, len(ordered), slots):
        rows = ordered[begin : begin + slots]
        for row, each in enumerate(rows):
            for place in range(0, len(each.prompt), PIECE):
                logits = session.prefill(row, each.prompt[place : place + PIECE], place)
            total += _surprise(logits[None, :], [each.answer[0]])
        for place in range(1, len(rows[0].answer)):
            rows = [each for each in rows if len(each.answer) > place]
            fed = [each.answer[place - 1] for each in rows]
            logits = session.decode(fed, [len(each.prompt) + place - 1 for each in rows])
            total += _surprise(logits, [each.answer[place] for each in rows])
    return total


def _surprise(logits: np.ndarray, tokens: Sequence[int]) -> float:
    """Sum of -log p(token), shape of `logits`: (rows, vocabulary)."""
    exact = logits.astype(np.float64)
    top = exact.max(axis=1)
    sums = np.log(np.exp(exact - top[:, None]).sum(axis=1)) + top
    return float((sums - exact[np.arange(len(tokens)), list(tokens)]).sum())


def _answers(engine: OnnxEngine, questions: Sequence[Question]) -> list[list[int]]:
    """Greedy answers, by the engine itself."""
    steps: queue.SimpleQueue[list[Step]] = queue.SimpleQueue()
    engine.start(steps.put)
    found: list[list[int]] = [[] for _ in questions]
    try:
        for number, each in enumerate(questions):
            engine.submit(number, each.prompt, Sampling(max_tokens=ANSWER))
        left = len(questions)
        while left:
            for step in steps.get():
                if step.finish in ("failed", "cancelled"):
                    raise EngineFailed("the engine died on the held-out questions; its log says why")
                if step.token is not None:
                    found[step.sequence].append(step.token)
                left -= step.finish is not None
    finally:
        engine.stop()
    return found


def _same(one: Sequence[int], other: Sequence[int]) -> float:
    longest = max(len(one), len(other))
    equal = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    return (min(len(one), len(other)) if equal is None else equal) / longest if longest else 1.0


def as_json(quality: Quality | None, facts: dict[str, Any]) -> str:
    """What quality.json holds."""
    figures = {} if quality is None else dataclasses.asdict(quality)
    return json.dumps(figures | facts, indent=2, default=str) + "\n"
