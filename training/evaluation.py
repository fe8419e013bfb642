"""The same held-out questions, asked before and after training, and how the answers compare.

    python -c "from evaluation import token_f1; print(token_f1('Bill Gates and Paul Allen', 'Paul Allen'))"

Loss and perplexity are over the assistant's tokens of the whole evaluation file; exact match and token F1 (the measures
of SQuAD, Rajpurkar et al. 2016, arXiv:1606.05250) over greedy answers to its first questions.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from encoding import IGNORED, Collator, Message, encode, prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Advance = Callable[[int], None]

CACHE_TOKENS = 8192


@dataclass(frozen=True)
class Answer:
    """One question, what the data answers and what the model answered, with both measures (0 to 1)."""

    question: str
    expected: str
    answer: str
    exact_match: float
    token_f1: float


@dataclass(frozen=True)
class Evaluation:
    """Loss (nats a token), perplexity, and the mean of each answer's measures."""

    loss: float
    perplexity: float
    exact_match: float
    token_f1: float
    answers: tuple[Answer, ...]

    def metrics(self) -> dict[str, float]:
        """The four numbers, by name."""
        return {name: value for name, value in asdict(self).items() if name != "answers"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**values, "answers": tuple(Answer(**answer) for answer in values["answers"])})


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    *,
    questions: int,
    max_new_tokens: int,
    max_length: int,
    batch_size: int,
    advance: Advance = lambda count: None,
) -> Evaluation:
    """Measure a model on conversations whose last message is the assistant's.

    Args:
        questions: how many of the conversations are asked; the loss is over all of them.
        max_length: conversations are cut to this many tokens for the loss; prompts keep their last ones.
        advance: called with the number of conversations just done, of len(conversations) + asked ones.
    """
    import torch

    training = model.training
    model.eval()
    # these shapes all differ: a compiled model would be compiled again for each
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        loss = _loss(model, tokenizer, conversations, max_length, batch_size, advance)
        asked = [messages for messages in conversations if messages[-1]["role"] == "assistant"][:questions]
        # four times the training's rows, but no more than fit a cache of 8,192 tokens (3 GiB for Phi-3-mini)
        size = max(1, min(batch_size * 4, CACHE_TOKENS // (_longest(asked, tokenizer, max_length) + max_new_tokens)))
        answers = _ask(model, tokenizer, asked, max_new_tokens, max_length, size, advance)
    model.train(training)
    count = max(len(answers), 1)
    return Evaluation(
        loss=loss,
        perplexity=math.exp(min(loss, 700)),
        exact_match=sum(answer.exact_match for answer in answers) / count,
        token_f1=sum(answer.token_f1 for answer in answers) / count,
        answers=tuple(answers),
    )


def compare(before: Sequence[Answer], after: Sequence[Answer]) -> tuple[list[int], list[int]]:
    """Indexes of the questions whose token F1 rose, and of those whose fell."""
    changes = [new.token_f1 - old.token_f1 for old, new in zip(before, after, strict=True)]
    return [i for i, change in enumerate(changes) if change > 0], [i for i, change in enumerate(changes) if change < 0]


def normalise(text: str) -> str:
    """SQuAD's normal form: lower case, no punctuation, no articles, single spaces."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, expected: str) -> float:
    """1.0 where the normal forms are the same, else 0.0."""
    return float(normalise(answer) == normalise(expected))


def token_f1(answer: str, expected: str) -> float:
    """F1 over the words of the normal forms; two empty texts agree."""
    given, wanted = normalise(answer).split(), normalise(expected).split()
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def _loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    max_length: int,
    batch_size: int,
    advance: Advance,
) -> float:
    import torch

    rows = []
    for messages in conversations:
        row = {key: tokens[:max_length] for key, tokens in encode(messages, tokenizer, assistant_only=True).items()}
        rows.append(row)
    # like lengths together, so that little is padded
    rows.sort(key=lambda row: len(row["input_ids"]))
    collate = Collator(tokenizer.pad_token_id)
    total, tokens = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = {key: value.to(model.device) for key, value in collate(rows[start : start + batch_size]).items()}
        targets = batch.pop("labels")[:, 1:]
        counts = targets != IGNORED
        if counts.any():
            logits = model(**batch, use_cache=False).logits[:, :-1][counts].float()
            total += torch.nn.functional.cross_entropy(logits, targets[counts], reduction="sum").item()
            tokens += int(counts.sum())
        advance(min(batch_size, len(rows) - start))
    return total / max(tokens, 1)


def _longest(conversations: Sequence[Sequence[Message]], tokenizer: PreTrainedTokenizerBase, limit: int) -> int:
    return min(limit, max((len(prompt_ids(messages[:-1], tokenizer)) for messages in conversations), default=0))


def _ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int,
    max_length: int,
    batch_size: int,
    advance: Advance,
) -> list[Answer]:
    prompts = [prompt_ids(messages[:-1], tokenizer)[-max_length:] for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        indexes = order[start : start + batch_size]
        texts = generate(model, tokenizer, [prompts[index] for index in indexes], max_new_tokens)
        for index, text in zip(indexes, texts, strict=True):
            *_, question, expected = [message["content"] for message in conversations[index]]
            answers[index] = Answer(question, expected, text, exact_match(text, expected), token_f1(text, expected))
        advance(len(indexes))
    return [answers[index] for index in range(len(prompts))]


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[str]:
    """Greedy answers to encoded prompts, in one batch padded on the left."""
    batch = tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt").to(model.device)
    # a model that trains has its cache off, and an answer without one takes a pass over everything for each token
    output = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False, use_cache=True)
    new = output[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
