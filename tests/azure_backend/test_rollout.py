"""A deployment that takes another's place: without a failed request, taken back when it is no good, gone back from."""

import json
import signal
import sys

import pytest

from tests.azure_backend.deployable import error_of, until


@pytest.fixture
def first(deployable):
    """An endpoint whose live deployment is of the run `first`; its name."""
    done = deployable.deploy(deployable.model("first"))
    assert done.returncode == 0, done.stderr
    (live,) = deployable.traffic()
    assert deployable.states() == {live: "Succeeded"}
    return live


def is_as_before(deployable, live: str) -> None:
    """Only the first deployment is there, with all of the traffic."""
    assert deployable.traffic() == {live: 100}
    assert deployable.states() == {live: "Succeeded"}
    assert deployable.answer() == "I am first."


def test_no_request_fails_while_another_takes_over(deployable, first):
    load = deployable.start("azure", "connect", "--", sys.executable, "-m", "devtools.rehearsal.load")
    assert load.stdout.readline().strip() == "asking"
    before = len(deployable.calls())
    done = deployable.deploy(deployable.model("second"))
    load.send_signal(signal.SIGTERM)
    counted = json.loads(load.communicate(timeout=60)[0].splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert counted["failed"] == 0, counted
    assert counted["answered"] > 50
    assert deployable.answer() == "I am second."
    (new,) = deployable.states()
    assert new != first
    steps = [line for line in done.stderr.splitlines() if line.startswith("traffic: ")]
    assert steps == [f"traffic: {percent} % to {new}" for percent in (10, 50, 100)]
    # made, three times traffic, and only then the old one deleted
    changes = [change for change in deployable.changes(before) if change[0] in ("PUT", "DELETE")]
    assert changes == [("PUT", f"/deployments/{new}"), *[("PUT", "")] * 3, ("DELETE", f"/deployments/{first}")]


@pytest.mark.parametrize(
    ("name", "behaviour", "said", "log"),
    [
        ("dies", {"dies": True}, "its container's log says why", "there is no such layer"),
        ("is-wrong", {"status": 500}, "status 500", "serving I am is-wrong."),
        ("is-silent", {"answer": " "}, "an empty text", "serving"),
        ("tires", {"fails_after": 9}, "fails at 50 % of the traffic", "serving I am tires."),
    ],
)
def test_one_that_is_no_good_is_taken_back(deployable, first, name, behaviour, said, log):
    done = deployable.deploy(deployable.model(name, **behaviour))
    assert done.returncode == 1, done.stderr
    assert said in error_of(done)
    assert f"{first} has all of the traffic, as before" in error_of(done)
    assert log in done.stderr
    is_as_before(deployable, first)


def test_a_probe_that_fails(deployable, first):
    deployable.refuse("probe")
    done = deployable.deploy(deployable.model("second"))
    assert done.returncode == 1
    assert "Readiness probe failed" in error_of(done)
    assert "ReadinessProbeFailed" in done.stderr
    is_as_before(deployable, first)


def test_back_at_once_to_what_was_kept_and_by_a_new_deployment_to_what_was_not(deployable, first):
    assert deployable.deploy(deployable.model("second"), "--keep").returncode == 0
    assert len(deployable.states()) == 2
    assert deployable.answer() == "I am second."
    before = len(deployable.calls())
    back = deployable.phikit("azure", "rollback", "--yes")
    assert back.returncode == 0, back.stderr
    is_as_before(deployable, first)
    assert not [
        change for change in deployable.changes(before) if change[1].startswith("/deployments") and change[0] == "PUT"
    ]
    # the one that it went back from is the one before now
    again = deployable.phikit("azure", "rollback", "--yes")
    assert again.returncode == 0, again.stderr
    assert deployable.answer() == "I am second."
    assert len(deployable.states()) == 1


def test_nothing_to_go_back_to(deployable):
    done = deployable.phikit("azure", "rollback", "--yes", "--endpoint", "nobodys")
    assert done.returncode == 2
    assert "phikit azure deploy makes it" in error_of(done)


def test_two_at_once(deployable, first):
    deployable.refuse("slow", times=1, seconds=8)
    one = deployable.begin(deployable.model("second"))
    until(lambda: len(deployable.states()) == 2, "the first of them is at it")
    two = deployable.deploy(deployable.model("third"))
    assert two.returncode == 1
    assert "another deployment of it goes on" in error_of(two)
    assert f"process {one.pid} on this machine" in error_of(two)
    down = deployable.phikit("azure", "down", "--yes")
    assert down.returncode == 1
    assert "another deployment of it goes on" in error_of(down)
    _, err = one.communicate(timeout=120)
    assert one.returncode == 0, err
    assert deployable.answer() == "I am second."
