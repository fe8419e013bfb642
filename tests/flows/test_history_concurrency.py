"""Writers at the same time, threads and processes, lose nothing; whoever is killed loses nothing that was kept.

pytest tests/flows/test_history_concurrency.py
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.history import Message, new_id
from tests.flows.stores import Store, sqlite_store

ROOT = Path(__file__).parents[2]
DEADLINE = 120


def said(content: str) -> Message:
    return Message(new_id(), "user", content, time.time())


def writer(store: Store, conversation: str, name: str, count: int) -> subprocess.Popen:
    """A process that appends `count` messages."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.flows.history_writer", "ada", conversation, name, str(count)],
        cwd=ROOT,
        env=os.environ | store.environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def by_writer(contents: list[str]) -> dict[str, list[str]]:
    """Every writer's messages in the order in which they are kept."""
    found: dict[str, list[str]] = {}
    for content in contents:
        found.setdefault(content.split()[0], []).append(content)
    return found


def expected(names: list[str], count: int) -> dict[str, list[str]]:
    return {name: [f"{name} {number}" for number in range(count)] for name in names}


def test_threads_that_append_to_one_conversation_lose_nothing(store, history):
    conversation = history.start("ada")
    names = [f"thread{number}" for number in range(6)]
    # half of them through a store of their own
    stores = [history, store.open()]

    def write(name: str, kept) -> None:
        for number in range(10):
            kept.append("ada", conversation, said(f"{name} {number}"))

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(write, names, itertools.cycle(stores)))
    contents = [message.content for message in history.open("ada", conversation)]
    assert by_writer(contents) == expected(names, 10)
    assert history.list("ada")[0].messages == 60


def test_processes_that_append_to_one_conversation_lose_nothing(store, history):
    conversation = history.start("ada")
    names = [f"process{number}" for number in range(3)]
    writers = [writer(store, conversation, name, 20) for name in names]
    for process in writers:
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
    contents = [message.content for message in history.open("ada", conversation)]
    assert by_writer(contents) == expected(names, 20)


def test_a_thumb_and_a_new_name_meanwhile_are_not_lost(history):
    conversation = history.start("ada")
    first = said("first")
    history.append("ada", conversation, first)

    def append() -> None:
        for number in range(15):
            history.append("ada", conversation, said(f"more {number}"))

    def rate() -> None:
        for rating in [-1, 0, 1] * 4 + [-1]:
            history.rate("ada", conversation, first.id, rating)

    def rename() -> None:
        for number in range(12):
            history.rename("ada", conversation, f"name {number}")

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(action) for action in (append, rate, rename)]:
            done.result()
    messages = history.open("ada", conversation)
    assert [message.content for message in messages] == ["first", *(f"more {number}" for number in range(15))]
    assert messages[0].rating == -1
    assert history.list("ada")[0].title == "name 11"


def test_conversations_that_are_begun_at_the_same_time_are_all_there(history):
    def begin(number: int) -> str:
        conversation = history.start(f"user {number % 3}")
        history.append(f"user {number % 3}", conversation, said(f"question {number}"))
        return conversation

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(begin, range(30)))
    for user in range(3):
        listed = history.list(f"user {user}")
        assert {summary.id for summary in listed} == set(made[user::3])
        assert len({summary.updated for summary in listed}) == 10


def test_what_was_kept_before_a_kill_is_there_after_it(store, history):
    conversation = history.start("ada")
    process = writer(store, conversation, "victim", 10_000)
    acknowledged = [process.stdout.readline().strip() for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.communicate(timeout=DEADLINE)[0].splitlines()
    contents = [message.content for message in history.open("ada", conversation)]
    assert contents[: len(acknowledged)] == acknowledged
    # (one more may have been written and not yet said)
    assert len(acknowledged) <= len(contents) <= len(acknowledged) + 1
    history.append("ada", conversation, said("after"))
    assert history.open("ada", conversation)[-1].content == "after"


@pytest.mark.parametrize("round_", range(3))
def test_processes_that_make_the_same_file_at_once_all_open_it(tmp_path, round_):
    store = sqlite_store(tmp_path / "conversations.db")
    command = [sys.executable, "-c", "import os, flows.history as h; print(h.open_history(os.environ).start('ada'))"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=os.environ | store.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    made = {process.communicate(timeout=DEADLINE)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 5
    history = store.open()
    assert {summary.id for summary in history.list("ada")} == made
    assert len(made) == 5
    store.close()
