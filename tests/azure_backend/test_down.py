"""phikit azure down: what the kit made and costs, listed, then deleted; what it did not make, never touched."""

import json
from collections.abc import Iterator

import pytest

from tests.azure_backend.deployable import error_of

TRAIN = ("azure", "train", "--yes", "--no-wait", "--set", "steps=400", "--set", "pause=0.5")


@pytest.fixture(scope="module")
def made(deployable, small) -> Iterator[str]:
    """An endpoint with a deployment, a job at work on a cluster, which this names; and others' endpoint and cluster."""
    assert deployable.deploy(deployable.model("first")).returncode == 0
    assert small.phikit(*TRAIN, "--name", "at-work").returncode == 0
    others = {"endpoints": deployable.endpoint, "computes": clusters(deployable)[0]}
    for kind, name in others.items():
        document = json.loads(json.dumps(deployable.store.get(kind, name)).replace(name, f"their-{kind}"))
        deployable.store.put(kind, f"their-{kind}", without_tags(document))
    yield others["computes"]
    for kind in others:
        deployable.store.delete(kind, f"their-{kind}")


def without_tags(document: dict) -> dict:
    document["properties"].pop("traffic", None)
    return document | {"tags": {}}


def clusters(running) -> list[str]:
    return [name for name, _ in running.store.all("computes")]


def job(running) -> str:
    """The state of the job."""
    ((_, body),) = [(name, body) for name, body in running.store.all("jobs") if name.startswith("at-work")]
    return body["properties"]["status"]


def test_nothing_goes_without_an_answer(deployable, made):
    before = len(deployable.calls())
    done = deployable.phikit("azure", "down")
    assert done.returncode == 2
    line = error_of(done)
    for part in (f"endpoint {deployable.endpoint}, ", "job at-work-", f"cluster {made}: ", "USD a day", "say --yes"):
        assert part in line
    assert "their-" not in done.stderr
    assert deployable.changes(before) == []
    assert made in clusters(deployable)
    assert deployable.answer() == "I am first."


def test_what_the_kit_made_goes_and_nothing_else(deployable, made):
    before = len(deployable.calls())
    done = deployable.phikit("azure", "down", "--yes")
    assert done.returncode == 0, done.stderr
    assert [name for name, _ in deployable.store.all("endpoints")] == ["their-endpoints"]
    assert clusters(deployable) == ["their-computes"]
    assert not deployable.store.all("deployments")
    assert job(deployable) == "Canceled"
    # what costs the most goes first, and the cluster once its job is over
    asked = [line for line in done.stderr.splitlines() if line.endswith(" it")]
    assert [line.split()[0] for line in asked] == ["endpoint", "job", "cluster"]
    assert not [path for path in paths(deployable, before) if "their-" in path]
    # what stays (and that the emulator's price list has no storage)
    lines = done.stdout.splitlines()
    assert all(line.startswith("stays: ") for line in lines)
    assert "stays: models: phikit:" in done.stdout
    (runs,) = [line for line in lines if line.startswith("stays: runs, ")]
    assert runs.endswith(": at a price that the public list does not say")
    assert deployable.store.all("models")


def paths(running, since: int) -> list[str]:
    """Of the calls that delete or change something."""
    return [call["path"] for call in running.calls()[since:] if call["method"] in ("PUT", "PATCH", "DELETE")]


def test_again_there_is_nothing_to_do(deployable, made):
    before = len(deployable.calls())
    done = deployable.phikit("azure", "down")
    assert done.returncode == 0, done.stderr
    assert "there is nothing of the kit's that costs by the hour" in done.stderr
    assert paths(deployable, before) == []


def test_with_all_models_are_archived(deployable, made):
    def live() -> list[str]:
        found = deployable.store.all("models")
        return [name for name, body in found if not body["properties"].get("isArchived")]

    assert live()
    done = deployable.phikit("azure", "down", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert "(archived): " in done.stderr
    assert live() == []
    assert "stays: models" not in done.stdout
    # a model that is wanted again is registered again
    assert deployable.phikit("azure", "register", "--run", "first").returncode == 0
    assert len(live()) == 1


def test_what_may_not_be_deleted_is_said_with_its_cost(deployable, made):
    assert deployable.deploy("first").returncode == 0
    deployable.refuse("role", on="onlineEndpoints/delete")
    done = deployable.phikit("azure", "down", "--yes")
    assert done.returncode == 1
    assert "onlineEndpoints/delete" in error_of(done)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("stays: endpoint ")]
    assert line.startswith(f"stays: endpoint {deployable.endpoint}: ")
    assert line.endswith(" USD a day")
    deployable.refuse_nothing()
    assert deployable.phikit("azure", "down", "--yes").returncode == 0
    assert deployable.made() is None
