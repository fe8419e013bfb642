"""A store that cannot answer says why, in one line that a person can read, and has then changed nothing.

pytest tests/flows/test_history_unavailable.py
"""

import os
import re
import resource
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.history import Message, Unavailable, new_id, open_history
from flows.history.cosmos import CosmosHistory
from flows.history.sqlite import VERSION, SqliteHistory
from tests.devtools.conftest import as_somebody
from tests.flows.relay import LOST, PASS, relaying
from tests.flows.stores import KEY, cosmos_store, free_port

ROOT = Path(__file__).parents[2]
CONVERSATIONS = 10_000
#: Seconds in which their list opens.
LISTED = 0.3


def said(content: str) -> Message:
    return Message(new_id(), "user", content, time.time())


def reason(unavailable) -> str:
    """What a person reads: one line."""
    text = str(unavailable.value)
    assert "\n" not in text
    assert len(text) < 300
    return text


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "conversations.db"


@pytest.fixture
def kept(file):
    history = SqliteHistory(file, patience=0.1)
    yield history
    history.close()


def test_a_locked_file_can_be_read_and_not_written(file, kept):
    conversation = kept.start("ada")
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(Unavailable) as unavailable:
            kept.append("ada", conversation, said("Hello"))
        assert time.monotonic() - begun < 3
        assert reason(unavailable) == f"{file}: is locked by another program; try again in a moment"
        assert kept.open("ada", conversation) == []
        assert len(kept.list("ada")) == 1
        other.execute("ROLLBACK")
    other.close()
    kept.append("ada", conversation, said("Hello"))
    assert len(kept.open("ada", conversation)) == 1


def test_a_writer_waits_for_a_lock_that_is_given_up_in_time(file):
    history = SqliteHistory(file, patience=60)
    conversation = history.start("ada")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(history.append, "ada", conversation, said("Hello"))
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        # readers do not wait
        assert history.open("ada", conversation) == []
        other.execute("ROLLBACK")
        waiting.result(timeout=60)
    other.close()
    assert len(history.open("ada", conversation)) == 1
    history.close()


#: Appends 100 kB messages until the store says no; then reads what it kept. To be run where there is little room.
FILL = """
import os, sys, time
from flows.history import Message, Unavailable, new_id, open_history
history = open_history(os.environ)
conversation = history.start("ada")
kept = 0
try:
    for _ in range(100):
        history.append("ada", conversation, Message(new_id(), "user", "x" * 100_000, time.time()))
        kept += 1
except Unavailable as error:
    print(error)
assert 0 < kept < 100, kept
assert len(history.open("ada", conversation)) == kept == history.list("ada")[0].messages
"""


def fill(file: Path, *before: str, **options) -> str:
    """What a process says that fills the store; `before`: the start of its command line."""
    command = [*before, sys.executable, "-c", FILL]
    environment = os.environ | {"PHIKIT_HISTORY": f"sqlite:{file}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_named_and_what_was_kept_stays(tmp_path):
    mount = ["unshare", "--user", "--map-root-user", "--mount"] if os.getuid() else ["unshare", "--mount"]
    script = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'
    if subprocess.run([*mount, "sh", "-c", script, str(tmp_path), "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: no file system of a given size can be mounted here")
    said = fill(tmp_path / "conversations.db", *mount, "sh", "-c", script, str(tmp_path))
    assert said == f"{tmp_path / 'conversations.db'}: cannot be written: the disk is full; free some space\n"


def test_a_file_that_may_not_grow_is_named_and_what_was_kept_stays(file):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    # (Python ignores the signal that comes with it)
    assert re.fullmatch(rf"{re.escape(str(file))}: cannot be read or written: .*\n", fill(file, preexec_fn=limit))


def test_a_read_only_folder_is_named(tmp_path):
    for folder, names in (("empty", []), ("full", ["conversations.db"])):
        (tmp_path / folder).mkdir()
        for name in names:
            SqliteHistory(tmp_path / folder / name).close()
            (tmp_path / folder / name).chmod(0o444)
        (tmp_path / folder).chmod(0o555)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    program = (
        "import os\nfrom flows.history import Unavailable, open_history\n"
        "try:\n    open_history(os.environ).start('ada')\nexcept Unavailable as error:\n    print(error)"
    )
    for path in ("empty/conversations.db", "empty/new/conversations.db", "full/conversations.db"):
        done = subprocess.run(
            [*as_somebody(), sys.executable, "-c", program],
            env=os.environ | {"PHIKIT_HISTORY": f"sqlite:{tmp_path / path}", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(rf"{re.escape(str(tmp_path / path))}: cannot be (made|written|opened)\b.*\n", done.stdout)


def test_a_file_of_another_version_is_left_as_it_is(file, kept):
    kept.start("ada")
    kept.close()
    with sqlite3.connect(file) as other:
        other.execute(f"PRAGMA user_version = {VERSION + 1}")
    other.close()
    before = file.read_bytes()
    with pytest.raises(Unavailable) as unavailable:
        SqliteHistory(file)
    assert f"has version {VERSION + 1}" in reason(unavailable)
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database " * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_left_as_it_is(file, content):
    file.write_bytes(content)
    with pytest.raises(Unavailable) as unavailable:
        SqliteHistory(file)
    assert re.match(rf"{re.escape(str(file))}: is (no SQLite file|damaged)", reason(unavailable))
    assert file.read_bytes() == content


def test_a_folder_in_place_of_the_file_is_named(tmp_path):
    with pytest.raises(Unavailable) as unavailable:
        SqliteHistory(tmp_path)
    assert reason(unavailable).startswith(f"{tmp_path}: cannot be opened")


def test_conversations_can_be_read_by_their_owner_alone(tmp_path):
    history = SqliteHistory(tmp_path / "new" / "conversations.db")
    history.start("ada")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert modes.keys() >= {"conversations.db", "conversations.db-wal"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    history.close()


def test_ten_thousand_conversations_are_listed_at_once(file, kept):
    # (laid down in one transaction: making them one by one is not what is measured)
    with sqlite3.connect(file) as other:
        rows = [(f"{number:032x}", "ada", f"Question {number}", float(number), 4) for number in range(CONVERSATIONS)]
        other.executemany("INSERT INTO conversations VALUES (?, ?, ?, ?, ?)", rows)
        messages = [(row[0], f"m{turn}", f"{turn} says {'something ' * 30}") for row in rows for turn in range(4)]
        other.executemany(
            "INSERT INTO messages (conversation, id, role, content, created, rating, details)"
            " VALUES (?, ?, 'user', ?, 0, 0, '{}')",
            messages,
        )
    other.close()
    asked = {
        "the first page": lambda history: history.list("ada"),
        "all": lambda history: history.list("ada", CONVERSATIONS),
        "a later page": lambda history: history.list("ada", 50, before=5000.0),
        "one's own": lambda history: history.list("eve"),
    }
    for what, ask in asked.items():
        took = []
        for _ in range(3):
            begun = time.perf_counter()
            history = SqliteHistory(file)
            found = ask(history)
            took.append(time.perf_counter() - begun)
            history.close()
        assert min(took) < LISTED, what
        assert len(found) == {"all": CONVERSATIONS, "one's own": 0}.get(what, 50)


@pytest.fixture
def relay(emulator):
    with relaying(emulator.port) as between:
        yield between


@pytest.fixture
def far(emulator, relay):
    """A store in Cosmos DB behind the relay, with little patience."""
    environment = cosmos_store(emulator).environment
    history = CosmosHistory(relay.uri, KEY, environment["PHIKIT_COSMOS_DATABASE"], patience=1)
    yield history
    history.close()


def test_cosmos_that_throttles_for_a_moment_is_asked_again(relay, far):
    conversation = far.start("ada")
    relay.plan = [429, 429, 429]
    far.append("ada", conversation, said("Hello"))
    assert relay.plan == []
    assert [message.content for message in far.open("ada", conversation)] == ["Hello"]


def test_cosmos_that_goes_on_throttling_is_named(relay, far):
    conversation = far.start("ada")
    relay.plan = [429] * 1000
    begun = time.monotonic()
    with pytest.raises(Unavailable) as unavailable:
        far.append("ada", conversation, said("Hello"))
    assert time.monotonic() - begun < 20
    assert len(relay.plan) < 999
    assert "overloaded (429)" in reason(unavailable)
    relay.plan = []
    assert far.open("ada", conversation) == []


@pytest.mark.parametrize(("status", "says"), [(401, "refuses the key"), (403, "refuses access"), (413, "2 MB")])
def test_cosmos_that_refuses_is_named(relay, far, status, says):
    relay.plan = [status] * 3
    with pytest.raises(Unavailable, match=says) as unavailable:
        far.start("ada")
    assert KEY not in reason(unavailable)


def test_a_message_whose_acknowledgement_got_lost_is_kept_once(relay, far):
    conversation = far.start("ada")
    message = said("Hello")
    # the reading passes, the writing's answer does not
    relay.plan = [PASS, LOST]
    try:
        far.append("ada", conversation, message)
    except Unavailable:
        far.append("ada", conversation, message)
    assert far.open("ada", conversation) == [message]


def test_cosmos_that_is_out_of_reach_is_named():
    begun = time.monotonic()
    with pytest.raises(Unavailable) as unavailable:
        CosmosHistory(f"http://127.0.0.1:{free_port()}/", KEY, patience=1)
    assert "cannot be reached" in reason(unavailable)
    assert time.monotonic() - begun < 30


def test_cosmos_without_key_or_login_is_named(monkeypatch):
    # of all the ways to log in the one that asks nobody; it is tried before anything is sent
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unavailable) as unavailable:
        open_history({"PHIKIT_HISTORY": "cosmos", "PHIKIT_COSMOS_URI": f"https://localhost:{free_port()}/"})
    assert "no credential is found" in reason(unavailable)
