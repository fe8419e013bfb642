"""The checks on conversations, the digests that tell duplicates, and the trainer's way in.

python -m pytest tests/training/test_dataset.py
"""

import json
import random
import re
from pathlib import Path

import pytest

from checks import check_turns, render
from dataset import Checker, load_pair, read_conversations
from errors import BadInput
from findings import BadRow
from sources import open_file

GOOD = [("user", "Why?"), ("assistant", "Because.")]


def row(*turns):
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def findings(path: Path, **limits) -> list[str]:
    checker = Checker(**limits)
    list(checker.conversations(open_file(path)))
    return checker.findings.lines()


@pytest.mark.parametrize(
    ("turns", "kind", "words"),
    [
        ([], "no assistant turn", "no turns"),
        ([("user", "Why?")], "no assistant turn", "no assistant turn"),
        ([("system", "Be brief.")], "no assistant turn", "no assistant turn"),
        ([*GOOD, ("user", "And?")], "role order", "last turn is user"),
        ([("assistant", "Hello."), *GOOD], "role order", "turn 1 is assistant"),
        ([("user", "Why?"), *GOOD], "role order", "turn 2 is user"),
        ([*GOOD, ("assistant", "Indeed.")], "role order", "turn 3 is assistant"),
        ([*GOOD, ("system", "Be brief."), *GOOD], "role order", "turn 3 is system"),
        ([("system", "A"), ("system", "B"), *GOOD], "role order", "turn 2 is system"),
        ([("user", ""), GOOD[1]], "empty content", "turn 1 (user)"),
        ([GOOD[0], ("assistant", " \n\t")], "empty content", "turn 2 (assistant)"),
        ([GOOD[0], ("assistant", None)], "missing content", "turn 2 (assistant)"),
        ([("user", 42), GOOD[1]], "content not text", "a number"),
        ([("user", [{"type": "text", "text": "Why?"}]), GOOD[1]], "content not text", "a list"),
        ([("tool", "x"), *GOOD], "unknown role", "'tool'"),
        ([(None, "x"), *GOOD], "unknown role", "None"),
        ([(["user"], "x"), *GOOD], "unknown role", "['user']"),
    ],
)
def test_bad_turns(turns, kind, words):
    with pytest.raises(BadRow) as caught:
        check_turns(turns)
    assert caught.value.kind == kind
    assert words in str(caught.value)
    assert "; " in str(caught.value), "a finding names the fix"


def test_good_turns_and_an_empty_system_text():
    many = [("system", "Be brief."), *GOOD * 50]
    assert check_turns(many) == many
    assert check_turns([("system", ""), *GOOD]) == GOOD
    assert check_turns([("system", None), *GOOD]) == GOOD


def test_random_turns_are_accepted_exactly_when_they_alternate():
    chance = random.Random(5)
    outcomes = set()
    for _ in range(3000):
        roles = chance.choices(("system", "user", "assistant"), (1, 4, 4), k=chance.randint(0, 6))
        letters = "".join(role[0] for role in roles).removeprefix("s")
        wanted = bool(letters) and letters == "ua" * (len(letters) // 2)
        try:
            check_turns([(role, "x") for role in roles])
            accepted = True
        except BadRow:
            accepted = False
        assert accepted == wanted, roles
        outcomes.add(accepted)
    assert outcomes == {True, False}


def test_a_prepared_line_is_what_json_writes():
    chance = random.Random(3)
    letters = ['"', "\\", "\n", "\x00", "\x1f", "\x7f", "é", "漢", "😀", "\u2028", "/", "a", " "]
    for _ in range(300):
        content = "".join(chance.choices(letters, k=20)) + "x"
        turns = [("system", content[:5] + "x"), ("user", content), ("assistant", content[::-1])]
        wanted = {"messages": [{"role": role, "content": text} for role, text in turns]}
        assert render(turns)[0] == (json.dumps(wanted, ensure_ascii=False) + "\n").encode()


def test_identity_ignores_white_space_and_nothing_else():
    """Against the plain definition: the words of each content, split at ASCII's white space."""
    chance = random.Random(4)
    pieces = [
        " ",
        " ",
        "\n",
        "\t",
        "\r\n",
        "\x0b",
        "\f",
        "  ",
        "\\",
        "\\n",
        '"',
        '": "',
        '"}',
        "n",
        "1",
        "é",
        "\u00a0",
        "\0",
        " \0 ",
        "0",
    ]
    lines = {}
    for _ in range(20_000):
        turns = [
            (role, "".join(chance.choices(pieces, k=chance.randint(1, 4))) + chance.choice(["", "x"]))
            for role in (("user", "assistant") if chance.random() < 0.5 else ("system", "user", "assistant"))
        ]
        words = str([(role, re.split("[ \n\t\r\x0b\f]+", content.strip(" \n\t\r\x0b\f"))) for role, content in turns])
        lines.setdefault(words, set()).add(render(turns)[1])
    assert len(lines) > 5000
    assert all(len(identities) == 1 for identities in lines.values()), "one conversation, one identity"
    assert len(set.union(*lines.values())) == len(lines), "two conversations, two identities"


def test_every_bad_row_is_reported_with_its_line(tmp_path):
    path = write(
        tmp_path / "chats.jsonl",
        row(*GOOD),
        row(("user", "Why?")),
        "",
        '{"messages": [',
        "[1]",
        row(("user", "Why? "), ("assistant", "\nBecause.")),
        '{"text": "x"}',
        '{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]}',
        "[" * 100_000,
        row(("user", "Last?"), ("assistant", "Yes.")),
    )
    lines = findings(path)
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in lines] == ["2", "4", "5", "6", "7", "8", "9"]
    for line, words in zip(
        lines,
        (
            "no assistant",
            "cut off",
            "a list",
            f"same conversation as {path}:1",
            "no known layout",
            "surrogate",
            "nested",
        ),
        strict=True,
    ):
        assert words in line


def test_bytes_that_are_no_utf8_are_reported_with_their_line(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes((row(*GOOD) + "\n").encode() + '{"question": "café", "answer": "x"}\n'.encode("latin-1"))
    assert findings(path) == [f"{path}:2: not UTF-8 (byte 0xe9); save the file as UTF-8"]


def test_length_is_estimated_or_counted(tmp_path):
    path = write(tmp_path / "chats.jsonl", row(*GOOD), row(("user", "Why? " * 100), GOOD[1]))
    (line,) = findings(path, max_tokens=60)
    assert line.startswith(f"{path}:2: about 1") and "limit is 60 (estimated); shorten it or raise --max-tokens" in line
    (line,) = findings(path, max_tokens=60, count_tokens=lambda turns: len(turns[0][1]))
    assert line.startswith(f"{path}:2: 500 tokens, the limit is 60;")
    assert findings(path, max_tokens=0) == []


def test_many_findings_are_listed_then_counted(tmp_path):
    path = write(tmp_path / "chats.jsonl", *(row(("user", str(number))) for number in range(3000)), "x")
    lines = findings(path)
    assert len(lines) == 21
    assert lines[-1] == "and 2,981 more bad rows (in all: 3,000 no assistant turn, 1 not JSON)"


def test_load_pair_gives_what_the_files_hold(tmp_path):
    chats = [[("user", f"Question {number}? é"), ("assistant", f"Answer {number}.")] for number in range(2500)]
    train = write(tmp_path / "train.jsonl", *(row(*chat) for chat in chats[:2400]))
    test = write(tmp_path / "test.jsonl", *(row(*chat) for chat in chats[2400:]))
    loaded = load_pair(train, test, tmp_path / "cache")
    assert [dataset.column_names for dataset in loaded] == [["messages"], ["messages"]]
    for path, dataset in zip((train, test), loaded, strict=True):
        assert dataset.to_list() == [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert list(read_conversations(path)) == dataset.to_list()


def test_load_pair_reports_both_files_and_leaves_nothing(tmp_path):
    train = write(tmp_path / "train.jsonl", row(*GOOD), row(("user", "Why?")))
    test = write(tmp_path / "test.jsonl", row(("user", " Why?"), GOOD[1]), "{")
    with pytest.raises(BadInput) as caught:
        load_pair(train, test, tmp_path / "cache")
    places = [f"{train}:2: ", f"{test}:1: ", f"{test}:2: "]
    assert [line[: len(place)] for line, place in zip(caught.value.findings, places, strict=True)] == places
    assert f"the same conversation as {train}:1, so train and test overlap" in caught.value.findings[1]
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(BadInput, match=r"absent\.jsonl: no such file"):
        load_pair(train, tmp_path / "absent.jsonl", tmp_path / "cache")


def test_read_conversations_raises_after_the_good_ones(tmp_path):
    path = write(tmp_path / "chats.jsonl", row(*GOOD), "{")
    rows = read_conversations(path)
    assert next(rows)["messages"][1]["content"] == "Because."
    with pytest.raises(BadInput, match=r"chats\.jsonl:2: not JSON"):
        next(rows)
