"""The whole way, as the command line alone tells of it: in an emulator and, where one is named, in a real workspace.

    pytest -m azure tests/azure_backend/test_whole_way.py

takes the workspace that .env or the environment names, about an hour, and the price of one CPU node and one CPU
instance for that long. The workspace must have nothing of the kit's that costs by the hour: all of it is taken down at
the end. Each test goes on from the one before.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from devtools.rehearsal.load import BEGUN
from devtools.runs import Run, Runs
from devtools.settings import Settings
from tests.azure_backend.conftest import Checkout, Rehearsed, copy_of_the_checkout
from tests.azure_backend.served import errors, make_hasty
from tests.serving.models import QUESTION

#: The sample, learned well enough to tell an answer from noise, within seconds.
QUICK = ("--set", "num_train_epochs=8", "--set", "eval_max_new_tokens=8")
NAMED = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_WORKSPACE")
#: Seconds that a command may take where nodes and instances have to be had first.
PATIENCE = 3 * 3600


class InWorkspace(Checkout):
    """A checkout whose command line talks to Azure."""

    def phikit(self, *arguments: str, timeout: float = PATIENCE, **environment: str) -> subprocess.CompletedProcess:
        """Run `phikit ARGUMENTS` to its end."""
        return super().phikit(*arguments, timeout=timeout, **environment)


@pytest.fixture(scope="module", params=["rehearsal", pytest.param("workspace", marks=pytest.mark.azure)])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    if request.param == "rehearsal":
        rehearsed = request.getfixturevalue("rehearsed")
        make_hasty(rehearsed.root / "serving" / "deployment.yaml")
        yield rehearsed
        return
    known = Settings.load()
    if not all((known.azure_subscription, known.azure_group, known.azure_workspace)):
        pytest.skip(f"NOT TESTED: no real workspace is named ({', '.join(NAMED)})")
    named = dict(zip(NAMED, (known.azure_subscription, known.azure_group, known.azure_workspace), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in named.items():
            patch.setenv(name, str(value))
        checkout = InWorkspace(copy_of_the_checkout(tmp_path_factory.mktemp("checkout")))
        there = checkout.phikit("azure", "down")
        assert there.returncode == 0, f"the workspace has something of the kit's already: {there.stderr}"
        try:
            yield checkout
        finally:
            checkout.end()
            checkout.phikit("azure", "down", "--yes")


def whole(kit: Checkout, name: str) -> Run:
    """The run of that name, trained if it is not there."""
    runs = Runs(kit.root / "runs")
    if not (kit.root / "runs" / name).exists():
        done = kit.phikit("azure", "train", "--yes", "--name", name, *QUICK)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return runs.get(name)


def rows(done: subprocess.CompletedProcess) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def answer(kit: Checkout) -> str:
    done = kit.phikit("azure", "invoke", QUESTION)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def live(kit: Checkout) -> dict[str, str]:
    """Models by the deployments that have traffic."""
    return {name: model for name, model, _, share, *_ in rows(kit.phikit("azure", "endpoint")) if share != "0 %"}


def test_nothing_is_missing(kit):
    found = rows(kit.phikit("azure", "check"))
    assert {area for area, state, *_ in found if state == "fail"} == set()
    assert {"sign-in", "workspace", "CPU cluster", "endpoint"} <= {area for area, *_ in found}


def test_a_training_comes_home(kit):
    done = kit.phikit("azure", "train", "--yes", "--name", "whole", *QUICK)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "USD an hour" in done.stderr
    assert "https://ml.azure.com/runs/whole-" in done.stderr
    assert "asking the tuned model" in done.stdout
    assert "report: runs/whole/report.html" in done.stdout
    run = whole(kit, "whole")
    assert run.state == "finished"
    assert (kit.root / "runs" / "latest").resolve() == run.folder
    assert run.metrics["after"]["loss"] < run.metrics["before"]["loss"]
    for name in ("report.html", "loss_curve.png", "model/MLmodel"):
        assert (run.folder / name).is_file()
    assert not list(run.folder.glob("checkpoint-*"))
    assert not list(run.folder.glob(".home*"))
    # as every local run, it is listed with its scores
    assert "whole" in kit.phikit("runs").stdout
    # and given again, there is nothing to do
    again = kit.phikit("azure", "train", "--yes", "--name", "whole", *QUICK)
    assert again.returncode == 2
    assert "is a finished run" in errors(again)[0]


def test_its_metrics_are_in_the_workspace(kit):
    if not isinstance(kit, Rehearsed):
        pytest.skip("what a real workspace tracks is looked at in the studio")
    whole(kit, "whole")
    logged = [call["status"] for call in kit.calls() if call["path"].endswith("/runs/log-batch")]
    assert logged
    assert set(logged) == {200}


def test_the_job_is_listed(kit):
    whole(kit, "whole")
    (row,) = [row for row in rows(kit.phikit("azure", "list")) if row[0].startswith("whole-")]
    assert row[1:3] == ["Completed", "tiny_cpu"]
    assert rows(kit.phikit("azure", "status", "whole"))[0][:2] == row[:2]
    assert "asking the tuned model" in kit.phikit("azure", "logs", "whole").stdout


def test_it_is_deployed_and_answers(kit):
    whole(kit, "whole")
    done = kit.phikit("azure", "deploy", "--yes", "--run", "whole")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"https://phikit-\S+/score\n", done.stdout)
    assert len(live(kit)) == 1
    assert answer(kit)


def test_an_update_fails_no_request_and_can_be_taken_back(kit):
    whole(kit, "another")
    (before,) = live(kit).items()
    load = kit.start("azure", "connect", "--", sys.executable, "-m", "devtools.rehearsal.load")
    assert load.stdout.readline().strip() == BEGUN
    done = kit.phikit("azure", "deploy", "--yes", "--run", "another", "--keep")
    load.send_signal(signal.SIGTERM)
    counted = json.loads(load.communicate(timeout=120)[0].splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert (counted["failed"], counted["answered"] > 5) == (0, True), counted
    (after,) = live(kit).items()
    assert {before[0], before[1]}.isdisjoint(after)
    assert kit.phikit("azure", "rollback", "--yes").returncode == 0
    assert tuple(live(kit).items()) == (before,)
    assert answer(kit)


def test_keys_are_changed(kit):
    def keys(*options: str) -> dict[str, str]:
        return dict(rows(kit.phikit("azure", "keys", "--show", *options)))

    before, after = keys(), keys("--rotate", "primary")
    assert after["primary"] != before["primary"]
    assert after["secondary"] == before["secondary"]
    assert answer(kit)


def test_nothing_is_left(kit):
    done = kit.phikit("azure", "down", "--yes")
    assert done.returncode == 0, done.stderr
    assert "stays: models" in done.stdout
    again = kit.phikit("azure", "down")
    assert (again.returncode, "there is nothing of the kit's" in again.stderr) == (0, True), again.stderr
    assert kit.phikit("azure", "invoke").returncode == 2
