"""phikit azure deploy, endpoint, invoke and rollback when all goes well: each test goes on from the one before.

One endpoint: a first model, the next one under a constant load of requests, one beside which the old one is kept, back
to that at once, and back to one that is deployed no more.
"""

import json
import signal
import sys

import pytest

from devtools.rehearsal import IDENTITY, resource_id
from devtools.rehearsal.load import BEGUN
from tests.azure_backend.served import NAME, errors
from tests.serving.models import ANSWER, QUESTION

URI = f"https://{NAME}.eastus2.inference.ml.azure.com/score"
IS_OURS = ("made-by", "phikit")


def test_nothing_is_made_where_nobody_can_be_asked(served):
    before = len(served.calls())
    done = served.phikit("azure", "deploy", "--run", "one")
    assert done.returncode == 2
    assert "USD an hour" in done.stderr
    assert "--yes" in done.stderr
    assert served.changes(before) == []


def test_a_no_is_a_no(served):
    before = len(served.calls())
    code, shown = served.answered("azure", "deploy", "--run", "one", reply="n")
    assert code == 1
    assert "1 x Standard_F8s_v2" in shown
    assert "a day) until `phikit azure down`; deploy one?" in " ".join(shown.split())
    assert "error: nothing was done" in shown
    assert served.changes(before) == []


def test_the_first_one(served):
    identity = resource_id("userAssignedIdentities", IDENTITY, "Microsoft.ManagedIdentity")
    done = served.deploy(PHIKIT_AZURE_IDENTITY=identity)
    assert done.returncode == 0, done.stderr
    # the newest whole run's model, and the address alone on standard output
    assert done.stdout == f"{URI}\n"
    assert "model: registered as phikit:" in done.stderr
    assert f"making it, as {IDENTITY}" in done.stderr
    assert served.traffic == {"blue": 100}
    assert served.run_of_all == "one"
    assert list(served.endpoint["identity"]["userAssignedIdentities"]) == [identity]
    (blue,) = served.deployments.values()
    assert IS_OURS in served.endpoint["tags"].items()
    assert IS_OURS in blue["tags"].items()
    name, version = blue["tags"]["model"].split(":")
    assert blue["properties"]["model"].endswith(f"/models/{name}/versions/{version}")
    assert served.store.get("models", f"{name}/{version}")["properties"]["tags"]["run"] == "one"


def test_its_answer_is_all_that_invoke_prints(served):
    done = served.phikit("azure", "invoke", QUESTION)
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n")
    short = served.phikit("azure", "invoke", "--max-new-tokens", "1", "--deployment", "blue")
    assert 0 < len(short.stdout) < len(done.stdout)


def test_how_it_stands(served):
    done = served.phikit("azure", "endpoint")
    (row,) = done.stdout.splitlines()
    name, model, image, share, state, size, cost = row.split("\t")
    tags = served.deployments["blue"]["tags"]
    assert (name, model, image) == ("blue", tags["model"], tags["environment"])
    assert (share, state, size) == ("100 %", "Succeeded", "1 x Standard_F8s_v2")
    assert "USD" in cost
    assert URI in done.stderr
    assert "https://ml.azure.com/endpoints/realtime/" in done.stderr


def test_the_same_again_changes_nothing(served):
    before, uploaded = len(served.calls()), served.uploads()
    assert uploaded
    done = served.deploy("--run", "one")
    assert (done.returncode, done.stdout) == (0, f"{URI}\n")
    assert "already, with all of the traffic" in done.stderr
    assert served.changes(before) == []
    assert served.uploads() == uploaded


def test_an_update_fails_no_request(served):
    load = served.start("azure", "connect", "--", sys.executable, "-m", "devtools.rehearsal.load")
    assert load.stdout.readline().strip() == BEGUN
    before = len(served.calls())
    done = served.deploy("--run", "two")
    load.send_signal(signal.SIGTERM)
    out, said = load.communicate(timeout=120)
    assert done.returncode == 0, done.stderr
    assert load.returncode == 0, said
    counted = json.loads(out.splitlines()[-1])
    assert counted["failed"] == 0, counted
    assert counted["answered"] > 5
    assert served.run_of_all == "two"
    assert list(served.deployments) == ["green"]
    steps = [line for line in done.stderr.splitlines() if line.startswith("traffic: ")]
    assert steps == [f"traffic: {percent} % to green" for percent in (10, 50, 100)]
    # beside the old one, then the traffic, and the old one goes last
    changes = served.changes(before)
    ours = f"onlineEndpoints/{NAME}"
    asked = [change for change in changes if ours in change]
    assert asked == [
        f"PUT {ours}/deployments/green",
        *[f"PUT {ours}"] * 3,
        f"DELETE {ours}/deployments/blue",
    ], changes


def test_one_that_does_not_load_is_taken_back(served):
    before = served.deployments
    done = served.deploy("--run", "broken")
    assert done.returncode == 1
    (line,) = errors(done)
    assert "what it said is above; green has all of the traffic, as before" in line
    # the server's own words
    assert "cannot be loaded" in done.stderr.partition("the end of what blue says:")[2]
    assert served.deployments == before
    assert served.phikit("azure", "invoke", QUESTION).stdout == f"{ANSWER}\n"


def test_the_old_one_is_kept(served):
    model = next(key for key, body in served.store.all("models") if body["properties"]["tags"].get("run") == "one")
    done = served.deploy("--model", model.replace("/", ":"), "--keep")
    assert done.returncode == 0, done.stderr
    assert "deployment green: stays, without traffic; it costs what it did" in done.stderr
    assert served.traffic == {"blue": 100}
    assert served.run_of_all == "one"
    assert set(served.deployments) == {"blue", "green"}
    asked = served.phikit("azure", "invoke", QUESTION, "--deployment", "green")
    assert asked.stdout == f"{ANSWER}\n"


def test_back_to_it_at_once(served):
    before = len(served.calls())
    asked = served.phikit("azure", "rollback")
    assert asked.returncode == 2
    assert "all traffic from blue back to green" in asked.stderr
    done = served.phikit("azure", "rollback", "--yes")
    assert done.returncode == 0, done.stderr
    assert served.traffic == {"green": 100}
    assert list(served.deployments) == ["green"]
    assert served.run_of_all == "two"
    assert [change.partition(NAME)[2] for change in served.changes(before)] == ["", "/deployments/blue"]


def test_back_to_what_is_deployed_no_more(served):
    done = served.phikit("azure", "rollback", "--yes")
    assert done.returncode == 0, done.stderr
    assert "was live before; it is deployed again" in done.stderr
    assert served.run_of_all == "one"
    assert len(served.deployments) == 1
    # of the same image, whatever the one of today is
    assert (
        served.endpoint["tags"]["previous-environment"]
        == next(iter(served.deployments.values()))["tags"]["environment"]
    )


@pytest.mark.parametrize("command", ["endpoint", "invoke", "keys", "rollback", "connect"])
def test_another_endpoint_is_not_there(served, command):
    more = {"rollback": ["--yes"], "connect": ["--", "true"]}.get(command, [])
    done = served.phikit("azure", command, "--endpoint", "nobodys", *more)
    assert done.returncode == 2
    (line,) = errors(done)
    assert line.startswith("error: endpoint nobodys: ")
    assert "phikit azure deploy makes it" in line
