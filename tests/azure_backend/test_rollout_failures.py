"""A roll-out that is refused or broken off: nothing is half made, what is live stays, the next one goes on.

What a deployment itself does wrong is in test_rollout.py.
"""

import signal

import pytest

from tests.azure_backend.deployable import error_of, until

NEW = "nothing-left"


@pytest.fixture
def live(deployable):
    """The deployment of the run `first`; a test leaves it alone, with all of the traffic, and answering."""
    done = deployable.deploy(deployable.model("first"))
    assert done.returncode == 0, done.stderr
    (name,) = deployable.traffic()
    yield name
    assert deployable.traffic() == {name: 100}
    assert deployable.states() == {name: "Succeeded"}
    assert deployable.answer() == "I am first."


def interrupted(process, number: signal.Signals) -> tuple[int, list[str]]:
    """Send a signal to a command; its exit code and what it said until its end."""
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert "Traceback" not in said, said
    return process.returncode, said.splitlines()


@pytest.mark.parametrize(
    ("refusal", "options", "said"),
    [
        ("quota", {}, ["Standard_F8s_v2 needs 16 cores", "ask for more in the portal"]),
        ("sku", {}, ["is not supported for managed online deployments", "name another size"]),
        ("name-taken", {}, ["choose another name: PHIKIT_AZURE_ENDPOINT"]),
        (
            "role",
            {"on": "onlineEndpoints/write"},
            ["Microsoft.MachineLearningServices/workspaces/onlineEndpoints/write", "az role assignment create --role "],
        ),
        ("image-pull", {}, ["Unable to download user container image", "phikit azure image"]),
    ],
)
def test_a_first_one_that_is_refused_leaves_nothing(deployable, refusal, options, said):
    deployable.refuse(refusal, **options)
    done = deployable.deploy(deployable.model("first"), "--endpoint", NEW)
    assert done.returncode == 1
    assert done.stdout == ""
    line = error_of(done)
    for part in said:
        assert part in line
    assert deployable.store.get("endpoints", NEW) is None
    assert not deployable.store.all("deployments", f"{NEW}/")


def test_no_quota_for_a_second_one(deployable, live):
    deployable.refuse("quota")
    before = len(deployable.calls())
    done = deployable.deploy(deployable.model("second"))
    assert done.returncode == 1
    assert "ask for more in the portal" in error_of(done)
    assert [change for change in deployable.changes(before) if change[0] in ("PUT", "DELETE")] == []


def test_two_at_once_and_ctrl_c(deployable, live):
    deployable.refuse("slow", times=1, seconds=90)
    first = deployable.begin(deployable.model("second"))
    until(lambda: len(deployable.states()) == 2, "a second deployment")
    for command in (["deploy", "--run", deployable.model("third")], ["down"]):
        second = deployable.phikit("azure", *command, "--yes")
        assert second.returncode == 1
        assert "another deployment of it goes on" in error_of(second)
        assert f"process {first.pid} on this machine" in error_of(second)
    code, said = interrupted(first, signal.SIGINT)
    assert code == 130
    (line,) = [line for line in said if line.startswith("stopped: ")]
    assert "is being made, without traffic; the same command goes on, phikit azure rollback goes back" in line
    assert said[-1] == "interrupted"
    # what is live, given again, takes away what was begun
    done = deployable.deploy("first")
    assert done.returncode == 0, done.stderr
    assert "is being made from an earlier try, and not what is wanted: removing it" in done.stderr


def test_one_that_was_killed_half_way_is_taken_back(deployable, live):
    process = deployable.begin(deployable.model("second"))
    until(lambda: len(deployable.traffic()) == 2, "a part of the traffic")
    process.kill()
    process.communicate()
    done = deployable.phikit("azure", "rollback", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{live} has all of the traffic again" in done.stderr


def test_killed_wherever_and_given_again(deployable):
    assert deployable.deploy(deployable.model("first")).returncode == 0
    (old,) = deployable.traffic()
    before = len(deployable.calls())
    for step in (
        lambda: len(deployable.states()) == 2,
        lambda: len(deployable.traffic()) == 2,
        lambda: old not in deployable.traffic(),
    ):
        process = deployable.begin(deployable.model("second"))
        until(step, "the next step")
        process.kill()
        process.communicate()
        assert sum(deployable.traffic().values()) == 100
        assert deployable.ask().status_code == 200
    # nobody waits for the lock of one that is gone, and what was begun is used
    done = deployable.deploy("second")
    assert done.returncode == 0, done.stderr
    assert deployable.answer() == "I am second."
    (new,) = deployable.states()
    made = [change for change in deployable.changes(before) if change[0] in ("PUT", "DELETE") and change[1]]
    assert made == [("PUT", f"/deployments/{new}"), ("DELETE", f"/deployments/{old}")]


def test_what_was_begun_does_not_count_against_the_quota_of_what_takes_its_place(deployable):
    # (after the test before this one, one is live)
    assert len(deployable.states()) == 1
    deployable.refuse("slow", times=1, seconds=90)
    process = deployable.begin(deployable.model("third"))
    until(lambda: len(deployable.states()) == 2, "a second deployment")
    assert interrupted(process, signal.SIGTERM)[0] != 0
    # of the size's 32 cores the two have all
    done = deployable.deploy("first")
    assert done.returncode == 0, done.stderr
    assert deployable.answer() == "I am first."


def test_what_is_live_alone_is_not_taken_back(deployable):
    assert deployable.deploy(deployable.model("first")).returncode == 0
    # it answers as often as a roll-out asks, and no more
    done = deployable.deploy(deployable.model("tired", fails_after=21), "--keep")
    assert done.returncode == 0, done.stderr
    states, traffic = deployable.states(), deployable.traffic()
    assert len(states) == 2
    done = deployable.deploy("tired")
    assert done.returncode == 1
    assert "it is live, and stays: phikit azure rollback goes back" in error_of(done)
    assert (deployable.states(), deployable.traffic()) == (states, traffic)
    assert deployable.phikit("azure", "rollback", "--yes").returncode == 0
    assert deployable.answer() == "I am first."


def test_back_to_one_that_fails_is_taken_back(deployable):
    assert deployable.deploy(deployable.model("first")).returncode == 0
    # (asked so often while it is deployed, and once more before it gets the traffic again)
    assert deployable.deploy(deployable.model("aged", fails_after=22)).returncode == 0
    assert deployable.deploy(deployable.model("second"), "--keep").returncode == 0
    traffic, tags = deployable.traffic(), deployable.made()["tags"]
    done = deployable.phikit("azure", "rollback", "--yes")
    assert done.returncode == 1
    (live,) = traffic
    assert f"{live} has all of the traffic, as before" in error_of(done)
    assert (deployable.traffic(), deployable.made()["tags"]) == (traffic, tags)
    assert len(deployable.states()) == 2
    assert deployable.answer() == "I am second."


def test_an_endpoint_that_failed_keeps_what_is_behind_it(deployable):
    assert deployable.deploy(deployable.model("first")).returncode == 0
    before, document = len(deployable.calls()), deployable.made()
    document["properties"]["provisioningState"] = "Failed"
    deployable.store.put("endpoints", deployable.endpoint, document)
    done = deployable.deploy(deployable.model("second"))
    assert done.returncode == 0, done.stderr
    assert deployable.answer() == "I am second."
    (mended, *_) = [call["request"] for call in deployable.calls()[before:] if call["method"] == "PUT"]
    assert mended["properties"]["traffic"] == document["properties"]["traffic"]
