"""The endpoint's keys, and programs that are started with its address and key: fetched each time, kept nowhere."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from devtools.rehearsal import recorder
from tests.azure_backend.served import NAME
from tests.serving.models import ANSWER, QUESTION

CLIENT = """
import os, sys
sys.path.insert(0, os.getcwd())
from flows.endpoint import Endpoint
print(Endpoint.configured().answer([{"role": "user", "content": sys.argv[1]}]))
"""
#: Ends by its own will, with a code of its own.
PATIENT = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print(os.environ["PHIKIT_ENDPOINT_URI"], os.getpid(), flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def live(served) -> str:
    """The deployment that answers."""
    return served.live()


def keys(served, *arguments: str) -> dict[str, str]:
    done = served.phikit("azure", "keys", *arguments)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())


def status(served, key: str) -> int:
    """What a client with that key gets."""
    client = served.client
    answer = requests.post(
        f"https://{NAME}.eastus2.inference.ml.azure.com/score",
        json={"input_data": [QUESTION], "params": {"max_new_tokens": 2}},
        headers={"Authorization": f"Bearer {key}"},
        proxies={"https": client["HTTPS_PROXY"]},
        verify=client["REQUESTS_CA_BUNDLE"],
        timeout=60,
    )
    return answer.status_code


def test_they_are_masked_unless_asked_for(served, live):
    shown = keys(served, "--show")
    assert shown == {which: served.endpoint["_"][which] for which in ("primary", "secondary")}
    masked = keys(served)
    assert masked == {which: f"{key[:4]}{'*' * 8}" for which, key in shown.items()}


def test_an_old_one_is_refused_after_a_rotation(served, live):
    before = keys(served, "--show")
    after = keys(served, "--rotate", "primary", "--show")
    assert after["primary"] != before["primary"]
    assert after["secondary"] == before["secondary"]
    assert status(served, before["primary"]) == 401
    assert status(served, after["primary"]) == 200
    assert status(served, before["secondary"]) == 200
    # without saying which: both, and shown masked
    done = served.phikit("azure", "keys", "--rotate")
    assert "the secondary key is a new one" in done.stderr
    assert "the primary key is a new one" in done.stderr
    both = {which: served.endpoint["_"][which] for which in ("primary", "secondary")}
    assert set(both.values()).isdisjoint(after.values())
    for key in (*both.values(), *after.values()):
        assert key not in done.stdout + done.stderr
    assert status(served, after["secondary"]) == 401
    assert served.phikit("azure", "invoke", QUESTION).stdout == f"{ANSWER}\n"


def test_a_program_gets_address_and_key(served, live, tmp_path):
    done = served.phikit("azure", "connect", "--", sys.executable, "-c", CLIENT, QUESTION)
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n"), done.stderr
    # options after it are its own; a shell's code is its own
    done = served.phikit("azure", "connect", "--", "bash", "-c", 'test -n "$PHIKIT_ENDPOINT_KEY" && exit 7', "--yes")
    assert done.returncode == 7


def test_signals_go_to_it(served, live):
    process = served.start("azure", "connect", "--", sys.executable, "-c", PATIENT)
    uri, pid = process.stdout.readline().split()
    assert uri == f"https://{NAME}.eastus2.inference.ml.azure.com/score"
    # in the place of the command line, and with no key that others see
    assert int(pid) == process.pid
    assert served.endpoint["_"]["primary"].encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 9


def test_no_file_has_a_key(served, live, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    told = {"HOME": str(home), "TMPDIR": str(tmp_path)}
    for command in (["keys", "--show"], ["keys", "--rotate", "secondary"], ["invoke"], ["connect", "--", "true"]):
        assert served.phikit("azure", *command, **told).returncode == 0
    places = [str(served.root), str(tmp_path), str(served.home / recorder.FILE), str(Path.home() / ".azure")]
    for which in ("primary", "secondary"):
        search = ["grep", "-rlsF", served.endpoint["_"][which], *places]
        assert subprocess.run(search, capture_output=True, text=True, check=False).stdout == ""
    assert not (served.root / ".env").exists()
