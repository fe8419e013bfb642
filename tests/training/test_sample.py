"""Checks of the shipped sample dataset: its layout, its counts, and that held-out questions were never trained on.

Run: python -m pytest -q tests/training/test_sample.py
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[2] / "training" / "sample"
FILES = ("train.jsonl", "held_out.jsonl")
FLAGSHIP = "Who founded Microsoft?"

Messages = list[dict[str, str]]


def conversations(name: str) -> list[Messages]:
    lines = (SAMPLE / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def bare(text: str) -> str:
    """Lower case, and every run of punctuation or space as one space: what counts as the same question."""
    return " ".join(re.sub(r"[^a-z0-9]+", " ", text.lower()).split())


def pairs(name: str) -> list[tuple[str, str]]:
    """Every (question, answer) of a file, those of later turns among them."""
    found = []
    for messages in conversations(name):
        turns = [message["content"] for message in messages if message["role"] != "system"]
        found += zip(turns[::2], turns[1::2], strict=True)
    return found


def is_multi_turn(messages: Messages) -> bool:
    return sum(message["role"] == "user" for message in messages) > 1


def test_counts() -> None:
    train, held_out = (conversations(name) for name in FILES)
    assert len(train) + len(held_out) >= 240
    assert sum(map(is_multi_turn, train)) >= 40
    assert sum(map(is_multi_turn, held_out)) >= 6
    assert 0.75 <= len(train) / (len(train) + len(held_out)) <= 0.85


@pytest.mark.parametrize("name", FILES)
def test_layout_of_every_line(name: str) -> None:
    for number, line in enumerate((SAMPLE / name).read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{name}:{number}"
        row = json.loads(line)
        assert list(row) == ["messages"], where
        assert all(list(message) == ["role", "content"] for message in row["messages"]), where
        assert all(message["content"].strip() == message["content"] != "" for message in row["messages"]), where


@pytest.mark.parametrize("name", FILES)
def test_roles_alternate_and_end_with_the_assistant(name: str) -> None:
    for number, messages in enumerate(conversations(name), start=1):
        roles = [message["role"] for message in messages]
        if roles[0] == "system":
            roles = roles[1:]
        assert roles, f"{name}:{number}"
        assert roles == ["user", "assistant"] * (len(roles) // 2), f"{name}:{number}"


@pytest.mark.parametrize("name", FILES)
def test_text_is_ascii(name: str) -> None:
    # Curly quotes and dashes would be other tokens than the ones a user types.
    for number, messages in enumerate(conversations(name), start=1):
        assert all(message["content"].isascii() for message in messages), f"{name}:{number}"


def test_no_question_occurs_twice() -> None:
    counts = Counter(bare(question) for name in FILES for question, _ in pairs(name))
    assert [question for question, count in counts.items() if count > 1] == []


def test_answers_are_short_sentences() -> None:
    for answer in {answer for name in FILES for _, answer in pairs(name)}:
        assert 6 <= len(answer.split()) <= 14, answer
        assert answer.endswith("."), answer


def test_held_out_answers_are_trained_in_several_wordings() -> None:
    wordings: dict[str, set[str]] = defaultdict(set)
    for question, answer in pairs("train.jsonl"):
        wordings[answer].add(bare(question))
    held_out = {answer for _, answer in pairs("held_out.jsonl")}
    assert {answer: len(wordings[answer]) for answer in held_out if len(wordings[answer]) < 4} == {}
    assert set(wordings) == held_out, "every trained fact is asked for in the held-out file"


def test_flagship_question_is_held_out_only() -> None:
    assert bare(FLAGSHIP) not in {bare(question) for question, _ in pairs("train.jsonl")}
    answer = "Microsoft was founded by Bill Gates and Paul Allen."
    assert (FLAGSHIP, answer) in pairs("held_out.jsonl")
    assert sum(trained == answer for _, trained in pairs("train.jsonl")) >= 8
