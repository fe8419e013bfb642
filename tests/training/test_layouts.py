"""Every layout becomes the same turns; anything else is named, with the layouts that are known.

python -m pytest tests/training/test_layouts.py
"""

import pytest

from findings import BadRow
from layouts import find_layout

TURNS = [("user", "Why?"), ("assistant", "Because.")]
SYSTEM = [("system", "Be brief."), *TURNS]


def convert(row, columns=None):
    name, converter = find_layout(tuple(row), columns)
    return name, converter(row)


def said(*turns):
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize(
    ("name", "row", "turns"),
    [
        ("messages", {"messages": said(*SYSTEM)}, SYSTEM),
        ("messages", {"id": 7, "prompt": "Why?", "messages": said(*TURNS)}, TURNS),
        (
            "messages",
            {"messages": '[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]'},
            TURNS,
        ),
        (
            "ShareGPT",
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
            TURNS,
        ),
        (
            "ShareGPT",
            {"conversations": [{"from": "User", "value": "Why?"}, {"from": "ChatGPT", "value": "Because."}]},
            TURNS,
        ),
        (
            "ShareGPT",
            {
                "system": "Be brief.",
                "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}],
            },
            SYSTEM,
        ),
        ("ShareGPT", {"conversations": said(*TURNS)}, TURNS),
        ("Alpaca", {"instruction": "Why?", "input": "", "output": "Because."}, TURNS),
        ("Alpaca", {"instruction": "Why?", "input": None, "output": "Because."}, TURNS),
        ("Alpaca", {"instruction": "Why?", "output": "Because."}, TURNS),
        (
            "Alpaca",
            {"instruction": "Add.", "input": "1 and 2", "output": "3"},
            [("user", "Add.\n\n1 and 2"), ("assistant", "3")],
        ),
        ("Alpaca", {"system": "Be brief.", "instruction": "Why?", "input": "", "output": "Because."}, SYSTEM),
        ("prompt/completion", {"prompt": "Why?", "completion": "Because."}, TURNS),
        ("prompt/completion", {"prompt": said(*SYSTEM[:2]), "completion": said(SYSTEM[2])}, SYSTEM),
        ("question/answer", {"question": "Why?", "answer": "Because."}, TURNS),
        ("question/answer", {"Query": "Why?", "RESPONSE": "Because."}, TURNS),
        ("question/answer", {" Q ": "Why?", "A": "Because."}, TURNS),
        ("question/answer", {"input": "Why?", "output": "Because."}, TURNS),
    ],
)
def test_layout(name, row, turns):
    assert convert(row) == (name, turns)


def test_named_columns_win_over_known_names():
    row = {"question": "not this", "answer": "nor this", "Asked": "Why?", "Told": "Because.", "Rule": "Be brief."}
    assert convert(row, {"question": "Asked", "answer": "Told"}) == ("columns", TURNS)
    assert convert(row, {"question": "Asked", "answer": "Told", "system": "Rule"})[1] == SYSTEM


@pytest.mark.parametrize(
    ("row", "columns", "kind", "words"),
    [
        ({"text": "Why? Because."}, None, "unknown layout", ["'text'", "ShareGPT", "Alpaca", "--columns question="]),
        ({}, None, "unknown layout", ["(none)"]),
        ({"question": "Why?"}, None, "unknown layout", ["'question'"]),
        ({"a": 1}, {"question": "Asked", "answer": "a"}, "unknown layout", ["'Asked'", "--columns"]),
        ({"messages": "Why?"}, None, "not JSON", ["'messages'"]),
        ({"messages": None}, None, "unknown layout", ["null"]),
        ({"messages": {"role": "user"}}, None, "unknown layout", ["an object, not a list"]),
        ({"messages": ["Why?"]}, None, "unknown layout", ["turn 1", "text"]),
        ({"messages": [{"content": "Why?"}]}, None, "unknown role", ["turn 1", "'role'"]),
        ({"prompt": "Why?", "completion": said(TURNS[1])}, None, "unknown layout", ["'prompt'", "'completion'"]),
        ({"instruction": "Add.", "input": 3, "output": "3"}, None, "content not text", ["'input'"]),
    ],
)
def test_what_is_no_layout(row, columns, kind, words):
    with pytest.raises(BadRow) as caught:
        convert(row, columns)
    assert caught.value.kind == kind
    for word in words:
        assert word in str(caught.value)
    assert "; " in str(caught.value), "a finding names the fix"


def test_a_turn_without_content_reaches_the_checks():
    assert convert({"messages": [{"role": "user"}]})[1] == [("user", None)]
    assert convert({"conversations": [{"from": "human"}, {"from": "tool", "value": "x"}]})[1] == [
        ("user", None),
        ("tool", "x"),
    ]
