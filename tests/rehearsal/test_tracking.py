"""MLflow inside of jobs and beside them: azureml-mlflow, the kit's own tracking, the real server behind both."""

from pathlib import Path

import pytest

from devtools.rehearsal import API_HOST, workspace_id
from tests.rehearsal.small_jobs import SmallJobs, small_jobs

TRAINING = Path(__file__).parents[2] / "training"
URI = f"azureml://{API_HOST}/mlflow/v1.0{workspace_id()}"
#: The kit's own tracking, as fine_tune.py uses it.
TRACKER = """
import pathlib
import tracking

tracker = tracking.Tracker(pathlib.Path("."), "named-by-the-kit", None)
tracker.describe({"learning_rate": 1e-3, "long": "x" * 600}, {"recipe": "tiny"})
tracker.describe({"learning_rate": 5, "late": 1}, {})
for step in range(3):
    tracker.log({"train/loss": 3.0 - step}, step)
pathlib.Path("report.html").write_text("<p>report</p>")
tracker.keep(pathlib.Path("report.html"))
tracker.end("FINISHED")
print("run", tracker.run_id, flush=True)
"""
#: Somebody else's way with MLflow.
FLUENT = """
import os, pathlib
import mlflow

with mlflow.start_run() as run:
    mlflow.log_param("depth", 3)
    mlflow.log_metric("score", 0.25, step=1)
    mlflow.log_metric("score", 0.75, step=2)
    mlflow.log_metric("later", 1.0, synchronous=False).wait()
    mlflow.set_tag("colour", "blue")
    mlflow.log_dict({"a": 1}, "parts/one.json")
    folder = pathlib.Path("figures"); folder.mkdir()
    (folder / "one.txt").write_text("1"); (folder / "two.txt").write_text("2")
    mlflow.log_artifacts("figures", "figures")
    with mlflow.start_run(nested=True, run_name="child") as child:
        mlflow.log_metric("inner", 5)
    print("run", run.info.run_id, run.info.experiment_id == os.environ["MLFLOW_EXPERIMENT_ID"], flush=True)
try:
    mlflow.pyfunc.log_model(name="model", python_model=lambda model_input: model_input)
except mlflow.exceptions.MlflowException as error:
    print("log_model:", " ".join(str(error).split())[:200], flush=True)
"""


@pytest.fixture(scope="module")
def jobs(request) -> SmallJobs:
    return small_jobs(request)


@pytest.fixture(scope="module")
def mlflow_client(signed_in):
    """MLflow beside of jobs, signed in like everybody else."""
    from mlflow import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
        # (azureml-mlflow looks for artifacts with the sign-in of the default address alone)
        patch.setenv("MLFLOW_TRACKING_URI", URI)
        yield MlflowClient()


def test_the_kits_tracking_inside_of_a_job(jobs, mlflow_client):
    code = jobs.code(TRACKER, TRAINING / "tracking.py", TRAINING / "errors.py")
    jobs.submit("tracked", code=code, experiment_name="tracking")
    assert jobs.ends("tracked") == "Completed", jobs.log("tracked")
    assert "run tracked" in jobs.log("tracked")
    run = mlflow_client.get_run("tracked")
    assert run.info.run_id == "tracked"
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.001"
    assert len(run.data.params["long"]) == 500
    assert run.data.tags["recipe"] == "tiny"
    history = mlflow_client.get_metric_history("tracked", "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert [file.path for file in mlflow_client.list_artifacts("tracked")] == [
        "report.html",
        "system_logs",
        "user_logs",
    ]


def test_mlflows_own_way_inside_of_a_job(jobs, mlflow_client, rehearsal, tmp_path):
    jobs.submit("fluent", FLUENT, experiment_name="tracking")
    assert jobs.ends("fluent") == "Completed", jobs.log("fluent")
    assert "run fluent True" in jobs.log("fluent")
    assert "log_model:" in jobs.log("fluent")
    assert any(call["status"] == 404 and call["path"].endswith("/logged-models") for call in rehearsal.calls())
    run = mlflow_client.get_run("fluent")
    assert run.data.params == {"depth": "3"}
    assert run.data.metrics == {"score": 0.75, "later": 1.0}
    assert run.data.tags["colour"] == "blue"
    mlflow_client.download_artifacts("fluent", "figures", str(tmp_path))
    assert (tmp_path / "figures" / "two.txt").read_text() == "2"
    (child,) = mlflow_client.search_runs(
        [run.info.experiment_id], "tags.`mlflow.parentRunId` = 'fluent'", order_by=["start_time"]
    )
    assert child.data.metrics == {"inner": 5.0}


def test_mlflow_beside_of_jobs(mlflow_client, tmp_path):
    number = mlflow_client.create_experiment("beside")
    run = mlflow_client.create_run(number, run_name="by hand").info.run_id
    mlflow_client.log_metric(run, "score", 0.5)
    (tmp_path / "note.txt").write_text("by hand")
    mlflow_client.log_artifact(run, str(tmp_path / "note.txt"))
    mlflow_client.set_terminated(run)
    (found,) = mlflow_client.search_runs([number])
    assert (found.info.run_id, found.info.status, found.data.metrics) == (run, "FINISHED", {"score": 0.5})
    assert [file.path for file in mlflow_client.list_artifacts(run)] == ["note.txt"]


def test_artifacts_where_storage_refuses_to_write(mlflow_client, rehearsal, tmp_path):
    number = mlflow_client.create_experiment("unwritten")
    run = mlflow_client.create_run(number).info.run_id
    (tmp_path / "note.txt").write_text("by hand")
    rehearsal.refuse("storage-write")
    with pytest.raises(Exception, match="AuthorizationPermissionMismatch"):
        mlflow_client.log_artifact(run, str(tmp_path / "note.txt"))
    rehearsal.refuse_nothing()
    assert mlflow_client.list_artifacts(run) == []
    mlflow_client.log_artifact(run, str(tmp_path / "note.txt"))
    assert [file.path for file in mlflow_client.list_artifacts(run)] == ["note.txt"]


def test_a_run_that_is_not_there(mlflow_client):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="not found"):
        mlflow_client.get_run("nobody")


def test_models_are_not_registered_with_mlflow(mlflow_client):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="registered with azure-ai-ml"):
        mlflow_client.create_registered_model("with-mlflow")


def test_a_job_that_fails_has_a_run_that_failed(jobs, mlflow_client):
    jobs.submit("untracked", "raise SystemExit(3)")
    assert jobs.ends("untracked") == "Failed"
    assert mlflow_client.get_run("untracked").info.status == "FAILED"
