"""The endpoint's keys, and programs that are handed one: shown masked, made anew, kept in no file."""

import subprocess
import sys

from tests.serving.models import ANSWER, QUESTION

CLIENT = """
import os, sys
sys.path.insert(0, os.getcwd())
from flows.endpoint import Endpoint
endpoint = Endpoint(os.environ["PHIKIT_ENDPOINT_URI"], os.environ["PHIKIT_ENDPOINT_KEY"])
print(endpoint.answer([{"role": "user", "content": sys.argv[1]}]))
"""


def shown(served, *options: str) -> dict[str, str]:
    """The keys as the command prints them."""
    done = served.phikit("azure", "keys", *options)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t")[:2] for line in done.stdout.splitlines())


def test_keys_are_masked_unless_somebody_asks(served):
    served.live()
    masked, whole = shown(served), shown(served, "--show")
    assert masked.keys() == whole.keys() == {"primary", "secondary"}
    for which, key in whole.items():
        assert len(key) > 20
        assert key not in masked.values()
        assert key[8:] not in masked[which]


def test_the_flows_client_asks_with_what_it_is_handed(served):
    served.live()
    done = served.phikit("azure", "connect", "--", sys.executable, "-c", CLIENT, QUESTION)
    assert done.stdout == f"{ANSWER}\n", done.stderr


def test_a_command_ends_as_it_ends(served):
    served.live()
    assert served.phikit("azure", "connect", "--", "bash", "-c", "exit 7").returncode == 7
    done = served.phikit("azure", "connect", "--", "no-such-program")
    assert done.returncode == 2
    assert "no-such-program" in done.stderr


def test_a_key_that_is_made_anew(served):
    served.live()
    before = shown(served, "--show")
    after = shown(served, "--rotate", "primary", "--show")
    assert after["primary"] != before["primary"]
    assert after["secondary"] == before["secondary"]
    assert served.phikit("azure", "invoke", QUESTION).stdout == f"{ANSWER}\n"
    for key in (before["primary"], after["primary"]):
        found = subprocess.run(["grep", "-rlF", key, str(served.root)], capture_output=True, text=True, check=False)
        assert found.stdout == ""
