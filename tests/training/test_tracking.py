"""What a run leaves in MLflow: on a real server that has no logged models, and in a local file.

python -m pytest tests/training/test_tracking.py
"""

import hashlib
import json

import pytest

from errors import BadInput
from recipe import read_recipe
from tests.training.program import SHORT
from tests.training.tracking_server import free_port
from tracking import LONGEST_PARAM, Tracker, environment


@pytest.fixture
def client(finished):
    import mlflow

    return mlflow.MlflowClient(finished.uri)


@pytest.fixture
def tracked(finished, client):
    state = json.loads((finished.folder / "run.json").read_text())
    return client.get_run(state["mlflow_run_id"])


@pytest.fixture(autouse=True)
def no_store_of_another_test(monkeypatch):
    import mlflow

    yield
    mlflow.set_tracking_uri(None)


def test_run_needs_no_logged_models(finished):
    assert any("runs/create" in path for path in finished.paths)
    assert any("log-batch" in path for path in finished.paths)
    assert [path for path in finished.paths if "logged-models" in path or "logged_models" in path] == []
    assert not (finished.program.runs / "mlflow.db").exists(), "with a server there is no local store"


def test_params_are_the_recipe_as_overridden(tracked):
    values = {"recipe": "tiny_cpu", **read_recipe("tiny_cpu")[1], **SHORT}
    assert tracked.data.params == {key: str(value) for key, value in values.items()}


def test_metrics_are_there_for_each_step(finished, client, tracked):
    metrics = finished.metrics()
    steps = metrics["train"]["steps"]
    losses = client.get_metric_history(tracked.info.run_id, "train/loss")
    assert [metric.step for metric in losses] == list(range(2, steps + 1, SHORT["logging_steps"]))
    assert losses[-1].value == pytest.approx(metrics["train"]["loss"])
    held_out = client.get_metric_history(tracked.info.run_id, "eval/loss")
    assert len(held_out) == SHORT["num_train_epochs"] and held_out[-1].step == steps
    assert {"train/learning_rate", "train/grad_norm"} <= tracked.data.metrics.keys()
    for when in ("before", "after"):
        for name, value in metrics[when].items():
            assert tracked.data.metrics[f"{when}/{name}"] == pytest.approx(value)


def test_tags_tell_data_code_and_environment(finished, tracked):
    tags = tracked.data.tags
    for name, path in (("train", finished.program.train), ("eval", finished.program.held_out)):
        assert tags[f"data.{name}.sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tags["model"], tags["recipe"], tags["run"]) == ("tiny", "tiny_cpu", finished.name)
    assert {key: tags[key] for key in environment()} == environment()
    assert "code_version" in tags and tags["version.torch"]
    assert (tracked.info.status, tracked.info.run_name) == ("FINISHED", finished.name)


def test_artifacts_are_the_reports(finished, client, tracked, tmp_path):
    files = {item.path for item in client.list_artifacts(tracked.info.run_id)}
    assert files == {"metrics.json", "loss_curve.png", "report.html"}
    path = client.download_artifacts(tracked.info.run_id, "metrics.json", str(tmp_path))
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - MLflow names it as a text
        assert json.load(file) == finished.metrics()


def test_local_store_is_beside_the_runs_and_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "runs"
    store.mkdir()
    first = Tracker(store, "one", None)
    first.describe({"seed": 1, "long": "x" * 1000}, {"note": "a"})
    first.log({"train/loss": 2.0}, 1)
    first.end("KILLED")
    again = Tracker(store, "one", first.run_id)
    assert again.run_id == first.run_id
    run = again.client.get_run(first.run_id)
    assert run.info.status == "RUNNING", "as long as it runs again"
    again.describe({"seed": 1, "long": "x" * 1000}, {"note": "b"})
    again.log({"train/loss": 1.0}, 2)
    (tmp_path / "metrics.json").write_text("{}")
    again.keep(tmp_path / "metrics.json")
    again.end("FINISHED")
    run = again.client.get_run(first.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "one")
    assert run.data.params == {"seed": "1", "long": "x" * LONGEST_PARAM}
    assert run.data.tags["note"] == "b"
    assert [metric.value for metric in again.client.get_metric_history(first.run_id, "train/loss")] == [2.0, 1.0]
    assert (store / "mlflow.db").is_file()
    assert list(store.glob("mlartifacts/**/metrics.json"))
    assert not (tmp_path / "mlruns").exists(), "nothing in the working folder"


def test_run_whose_store_was_removed_begins_anew(tmp_path):
    tracker = Tracker(tmp_path, "one", "0" * 32)
    assert tracker.client.get_run(tracker.run_id).info.run_name == "one"


def test_run_that_azure_began_is_azures_to_end(tmp_path, monkeypatch):
    theirs = Tracker(tmp_path, "job", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs.run_id)
    ours = Tracker(tmp_path, "another name", None)
    assert ours.run_id == theirs.run_id
    ours.log({"train/loss": 1.0}, 1)
    ours.end("FAILED")
    run = theirs.client.get_run(theirs.run_id)
    assert (run.info.status, run.info.run_name, run.data.metrics["train/loss"]) == ("RUNNING", "job", 1.0)


def test_server_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    with pytest.raises(BadInput) as caught:
        Tracker(tmp_path, "one", None)
    (line,) = caught.value.findings
    assert line.startswith("MLFLOW_TRACKING_URI http://127.0.0.1:") and "check the address" in line
    assert "secret" not in line and "\n" not in line
