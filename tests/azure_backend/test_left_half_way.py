"""A roll-out that ends half-way, wherever that is: the same command goes on, and what is live goes on meanwhile.

The server is a small one (small_server.py); what is killed behind the kit's own is in test_rollout_failures.py.
"""

import sys

import pytest

from tests.azure_backend.deployable import error_of, until

#: Holds the endpoint as if from another machine, until its input ends.
HOLDER = """
import sys
from devtools.azure import lock
from devtools.azure.workspace import connect
from devtools.settings import Settings
lock.LEASE, lock.RENEWED = 15, 5
lock._space = lambda: "another machine's"
with lock.held(connect(Settings.load()), sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""

#: Holds it with a credential that is good no more, and goes on holding it.
EXPIRED = """
import sys, time
from azure.storage.blob import BlobClient, BlobLeaseClient
from devtools.azure import lock
from devtools.azure.workspace import connect
from devtools.settings import Settings
lock.RENEWED = 0.2
with lock.held(connect(Settings.load()), sys.argv[1]) as held:
    good = held._blob
    bad = BlobClient.from_blob_url(good.url.partition("?")[0] + "?sv=2021-08-06&sr=c&sp=rw&sig=bm8=")
    held._blob, held._lease = bad, BlobLeaseClient(bad, lease_id=held._lease.id)
    deadline, begun = time.monotonic() + 30, held._renewed
    while held._blob is bad or held._renewed == begun:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        begun = held._renewed if held._blob is bad else begun
    held.check()
print("held")
"""


def kill(deployable, process) -> None:
    process.kill()
    process.communicate()


def ends_with(deployable, run: str) -> None:
    """The same command, given again, ends with this run alone behind the endpoint."""
    done = deployable.deploy(run)
    assert done.returncode == 0, done.stderr
    assert deployable.answer() == f"I am {run}."
    assert list(deployable.traffic().values()) == [100]
    assert list(deployable.states().values()) == ["Succeeded"]


@pytest.fixture
def live(deployable):
    """Something that is live: the run `first`."""
    assert deployable.deploy(deployable.model("first")).returncode == 0
    return next(iter(deployable.traffic()))


def test_killed_while_the_endpoint_is_made(deployable):
    deployable.refuse("slow", times=1, seconds=4)
    process = deployable.begin(deployable.model("first"))
    until(deployable.made, "the endpoint is being made")
    kill(deployable, process)
    assert deployable.made()["properties"]["provisioningState"] == "Creating"
    ends_with(deployable, "first")


@pytest.mark.parametrize("percent", [10, 50, 100])
def test_killed_at_a_step_of_the_traffic(deployable, live, percent):
    process = deployable.begin(deployable.model("slow", slow=0.2))
    until(lambda: any(deployable.traffic().get(name) == percent for name in deployable.states() if name != live), "it")
    kill(deployable, process)
    assert len(deployable.states()) == 2
    assert deployable.ask().status_code == 200
    before = len(deployable.calls())
    ends_with(deployable, "slow")
    # it goes on from there: the traffic never goes back
    put = [
        call["request"]
        for call in deployable.calls()[before:]
        if call["method"] == "PUT" and "deployments" not in call["path"]
    ]
    shares = [
        100 - body["properties"]["traffic"].get(live, 0) for body in put if body.get("properties", {}).get("traffic")
    ]
    assert all(share > percent for share in shares)


def test_killed_half_way_and_then_another_one(deployable, live):
    process = deployable.begin(deployable.model("slow", slow=0.2))
    until(lambda: 50 in deployable.traffic().values(), "both have half of it")
    kill(deployable, process)
    done = deployable.deploy(deployable.model("second"))
    assert done.returncode == 0, done.stderr
    assert "its roll-out was broken off" in done.stderr
    # what was live before all that is what was replaced
    assert f"deployment {live}: removed" in done.stderr
    assert deployable.answer() == "I am second."
    assert len(deployable.states()) == 1


def test_what_another_machine_holds(deployable, live):
    def hold():
        holder = deployable.start_program(sys.executable, "-c", HOLDER, deployable.endpoint)
        assert holder.stdout.readline().strip() == "held", holder.stderr.read()
        return holder

    holder = hold()
    refused = deployable.deploy(deployable.model("second"))
    assert refused.returncode == 1
    assert "another deployment of it goes on since 0 min" in error_of(refused)
    assert "over after 60 s" in error_of(refused)
    assert deployable.states() == {live: "Succeeded"}
    # one that is killed there is over when its lease is
    holder.kill()
    holder.communicate()
    until(lambda: deployable.deploy("second").returncode == 0, "its lease runs out")
    assert deployable.answer() == "I am second."


def test_a_credential_of_the_storage_that_runs_out(deployable, live):
    holder = deployable.start_program(sys.executable, "-c", EXPIRED, deployable.endpoint)
    out, said = holder.communicate(timeout=90)
    assert out == "held\n", said
    # and it is let go
    assert deployable.deploy("first").returncode == 0
