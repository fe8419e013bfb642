"""Conversations become training data: chats that `phikit data prepare` takes back, and TRL's pairs of preferences.

pytest tests/flows/test_history_export.py
"""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.history import Message, new_id
from flows.history.export import PAGE, chats, preferences

ROOT = Path(__file__).parents[2]
PHIKIT = Path(sys.executable).with_name("phikit")


def said(role: str, content: str, rating: int = 0, **details) -> Message:
    return Message(new_id(), role, content, time.time(), rating, details)


def talk(history, *messages: Message, user: str = "ada") -> str:
    """A conversation of these messages."""
    conversation = history.start(user)
    history.append(user, conversation, *messages)
    return conversation


def program(store, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """`python -m flows.history ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "flows.history", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | store.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def turns(*contents: str, system: str = "") -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return first + [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]


def test_chats_go_through_data_prepare(store, history, tmp_path):
    """Everything that a page can leave behind at once: the file must pass all the same, row by row."""
    talk(history, said("user", "Who founded Microsoft?"), said("assistant", "Bill Gates and Paul Allen."))
    talk(history, said("user", "Who  founded\nMicrosoft?"), said("assistant", "Bill Gates and Paul Allen. "))
    talk(
        history,
        said("system", "Be short."),
        said("user", "Say <b>\"this\"</b> & \\ 'that'\u2028 من 👩🏽‍🚀"),
        said("assistant", "no\0thing\r\n\tat all"),
        said("user", "And when?"),
        said("assistant", "In 1975."),
        said("user", "Anything else?"),
    )
    talk(history, said("user", "Asked"), said("user", "Asked again"), said("assistant", "Answered"))
    talk(history, said("user", "Is anybody there?"))
    talk(history, said("user", "Nothing?"), said("assistant", "  "))
    talk(history, said("assistant", "I speak first"), said("user", "You do"), said("assistant", "I did"))
    talk(history)
    for number in range(8):
        talk(history, said("user", f"What is {number} + 1?"), said("assistant", str(number + 1)))
    talk(history, said("user", "Not mine"), said("assistant", "Bob's"), user="bob")

    file = tmp_path / "chats.jsonl"
    done = program(store, "export", str(file), "--user", "ada")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file}: 12 conversations\n"
    assert "Bob" not in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    prepared = subprocess.run(
        [PHIKIT, "data", "prepare", file, "--out", tmp_path / "data"],
        cwd=tmp_path,
        env=os.environ | {"DOCKER_HOST": "unix:///no/engine.sock"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    rows = [
        json.loads(line)
        for name in ("train_data.jsonl", "test_data.jsonl")
        for line in (tmp_path / "data" / name).read_text(encoding="utf-8").split("\n")
        if line
    ]
    assert len(rows) == 12
    exported = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    assert sorted(map(json.dumps, rows)) == sorted(map(json.dumps, exported))


def test_a_conversation_that_is_changed_meanwhile_is_exported_all_the_same(history):
    ids = [talk(history, said("user", f"What is {n}?"), said("assistant", f"It is {n}.")) for n in range(PAGE + 2)]
    lines = chats(history, "ada")
    given = [next(lines)]
    # the last one of the list moves to its head, which has been read
    history.append("ada", ids[0], said("user", "Sure?"), said("assistant", "Quite."))
    given += lines
    assert len(given) == len(ids)
    assert max(len(line["messages"]) for line in given) == 4


def test_a_chat_ends_before_what_nobody_should_learn(history):
    answered = said("user", "One?"), said("assistant", "Good.", 1)
    more = said("user", "Three?"), said("assistant", "Later.")
    talk(history, *answered, said("user", "Two?"), said("assistant", "Bad.", -1), *more)
    assert list(chats(history, "ada")) == [{"messages": turns("One?", "Good.")}]
    talk(
        history,
        *answered,
        said("user", "Other?"),
        said("assistant", "Fine."),
        said("user", "2"),
        said("assistant", "H", stopped=True),
        *more,
    )
    assert next(chats(history, "ada")) == {"messages": turns("One?", "Good.", "Other?", "Fine.")}
    talk(history, said("user", "Only?"), said("assistant", "Bad.", -1))
    assert len(list(chats(history, "ada"))) == 2


def test_a_chat_is_under_the_system_text_that_held_for_its_answers(history):
    talk(
        history,
        said("system", "Be short."),
        said("user", "One?"),
        said("assistant", "Yes."),
        said("user", "Two?"),
        said("assistant", "Arr.", system="Talk like a pirate."),
    )
    assert list(chats(history, "ada")) == [{"messages": turns("One?", "Yes.", system="Be short.")}]
    talk(history, said("user", "Three?"), said("assistant", "Arr!", system="Talk like a pirate."))
    assert next(chats(history, "ada")) == {"messages": turns("Three?", "Arr!", system="Talk like a pirate.")}


def test_a_chosen_answer_is_preferred_to_its_alternatives(history):
    others = [
        {"content": "Some people.", "model": "base"},
        {"content": "Who knows?"},
        {"content": "They did."},
        "x",
        {},
    ]
    talk(
        history,
        said("system", "Be short."),
        said("user", "Hello"),
        said("assistant", "Hello!"),
        said("user", "Who founded it?"),
        said("assistant", "They did.", alternatives=others, preferred=True),
    )
    talk(history, said("user", "Hello"), said("assistant", "Hi.", alternatives=[{"content": "Not chosen"}]))
    broken = {"alternatives": [{"content": "Whole."}], "preferred": True, "stopped": True}
    talk(history, said("user", "Hello"), said("assistant", "Hal", **broken))
    prompt = turns("Hello", "Hello!", "Who founded it?", system="Be short.")
    assert list(preferences(history, "ada")) == [
        {
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": "They did."}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for rejected in ("Some people.", "Who knows?")
    ]


def test_a_thumb_up_is_preferred_to_a_thumb_down_for_the_same_prompt(history):
    for content, rating in [("Good", 1), ("Bad", -1), ("Bad", -1), ("Neither", 0), ("Good", -1)]:
        talk(history, said("user", "Same?"), said("assistant", content, rating))
    talk(history, said("user", "Alone?"), said("assistant", "Good", 1))
    talk(history, said("user", "Same?"), said("assistant", "Anothers", 1), user="bob")
    talk(history, said("user", "Rated?"), said("assistant", "A", -1, alternatives=[{"content": "B", "rating": 1}]))
    found = {
        (pair["prompt"][-1]["content"], pair["chosen"][0]["content"], pair["rejected"][0]["content"])
        for pair in preferences(history, "ada")
    }
    assert found == {("Same?", "Good", "Bad"), ("Rated?", "B", "A")}


def test_preferences_are_what_trl_takes(store, history, tmp_path):
    data_utils = pytest.importorskip("trl.data_utils")
    transformers = pytest.importorskip("transformers")
    datasets = pytest.importorskip("datasets")
    for content, rating in [("Good", 1), ("Bad", -1)]:
        talk(history, said("system", "Be kind."), said("user", "Same?"), said("assistant", content, rating))
    file = tmp_path / "pairs.jsonl"
    done = program(store, "export", str(file), "--preferences", "--user", "ada")
    assert (done.returncode, done.stdout) == (0, f"{file}: 1 pairs\n"), done.stderr
    (row,) = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert data_utils.is_conversational(row)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=_tokenizer())
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    applied = data_utils.apply_chat_template(row, tokenizer)
    assert applied["prompt"] + applied["chosen"] == "<system>Be kind.<user>Same?<assistant>Good"
    assert applied["prompt"] + applied["rejected"] == "<system>Be kind.<user>Same?<assistant>Bad"


def _tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0}, unk_token="x"))


def test_the_command_line_lists_shows_renames_and_deletes(store, history):
    conversation = talk(history, said("user", "Who founded it?"), said("assistant", "They did."), user="local")
    talk(history, said("user", "Not mine"), user="bob")
    listed = program(store, "list")
    assert listed.stdout.startswith(f"{conversation}  2")
    assert listed.stdout.endswith("    2  Who founded it?\n")
    assert program(store, "show", conversation).stdout == "user: Who founded it?\nassistant: They did.\n"
    assert program(store, "rename", conversation, "A name").returncode == 0
    assert "A name" in program(store, "list", "--search", "THEY").stdout
    assert program(store, "list", "--search", "nowhere").stdout == ""
    other = program(store, "delete", conversation, "--user", "bob")
    assert (other.returncode, other.stdout) == (2, "")
    assert other.stderr == f"conversation {conversation}: there is none of this name\n"
    assert program(store, "delete", conversation).returncode == 0
    assert program(store, "list").stdout == ""


@pytest.mark.parametrize("there", [False, True], ids=["new", "there already"])
def test_an_export_that_fails_leaves_what_was_there(store, history, tmp_path, there):
    file = tmp_path / "chats.jsonl"
    if there:
        file.write_text("mine\n")
    nothing = program(store, "export", str(file))
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == f"{file}: not written, local has no conversations to export; --user names another\n"
    talk(history, said("user", "One?"), said("assistant", "Yes."), user="local")
    gone = tmp_path / "gone" / "chats.jsonl"
    nowhere = program(store, "export", str(gone))
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert nowhere.stderr == f"{gone}: cannot be written (No such file or directory); name another file\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "kept"] == (["chats.jsonl"] if there else [])
    if there:
        assert file.read_text() == "mine\n"


def test_a_store_that_cannot_be_opened_ends_with_one_line(tmp_path):
    file = tmp_path / "conversations.db"
    file.write_text("no database " * 1000)
    done = subprocess.run(
        [sys.executable, "-m", "flows.history", "list"],
        cwd=ROOT,
        env=os.environ | {"PHIKIT_HISTORY": f"sqlite:{file}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{file}: is no SQLite file; name another in PHIKIT_HISTORY\n"
