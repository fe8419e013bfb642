"""Command jobs through the real SDK: they really run, their log is streamed, what they make is there afterwards."""

import json
import threading
import time
from pathlib import Path

import pytest

WORK = """
import os, pathlib, sys, time
out, text, steps = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text().strip(), int(sys.argv[3])
done = sorted(int(path.name.split("-")[1]) for path in out.glob("checkpoint-*"))
print("begins at", done[-1] if done else 0, "with", text, flush=True)
for step in range(done[-1] if done else 0, steps):
    (out / f"checkpoint-{step + 1}").write_text(text)
    print("step", step + 1, flush=True)
    time.sleep(float(sys.argv[4]))
(out / "result.txt").write_text(text * 2)
"""


@pytest.fixture(scope="module")
def cluster(ml_client):
    from azure.ai.ml.entities import AmlCompute

    def have(name: str, tier: str = "dedicated") -> str:
        made = AmlCompute(name=name, size="Standard_DS3_v2", max_instances=2, tier=tier)
        return ml_client.compute.begin_create_or_update(made).result().name

    return have


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("job")
    (made / "code").mkdir()
    (made / "code" / "work.py").write_text(WORK)
    (made / "words.txt").write_text("ham")
    return made


@pytest.fixture(scope="module")
def job(folder, cluster, rehearsal, request):
    from azure.ai.ml import Input, Output, command
    from azure.ai.ml.entities import Environment

    image = "phikit-runtime:cpu"
    if json.loads((rehearsal.home / "running.json").read_text())["runner"] == "docker":
        request.getfixturevalue("runtime_image")

    def make(
        name: str, steps: int = 3, pause: float = 0.2, compute: str = "jobs-here", script: str = "work.py", **more
    ):
        return command(
            name=name,
            code=str(folder / "code"),
            command=f"python {script} ${{{{outputs.made}}}} ${{{{inputs.words}}}} ${{{{inputs.steps}}}} {pause}",
            inputs={"words": Input(type="uri_file", path=str(folder / "words.txt")), "steps": steps},
            outputs={"made": Output(type="uri_folder")},
            environment=Environment(image=image),
            compute=compute,
            experiment_name="jobs",
        )

    cluster("jobs-here")
    cluster("jobs-cheap", "low_priority")
    return make


def status_becomes(ml_client, name: str, *wanted: str, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while (status := ml_client.jobs.get(name).status) not in wanted:
        assert time.monotonic() < deadline, status
        threading.Event().wait(0.2)
    return status


def test_a_job_from_submit_to_its_outputs(ml_client, job, tmp_path, capsys):
    submitted = ml_client.jobs.create_or_update(job("first"))
    assert submitted.services["Studio"].endpoint.startswith("https://ml.azure.com/runs/first")
    ml_client.jobs.stream("first")
    said = capsys.readouterr().out
    assert "begins at 0 with ham" in said
    assert "step 3" in said
    done = ml_client.jobs.get("first")
    assert done.status == "Completed"
    assert done.experiment_name == "jobs"
    ml_client.jobs.download("first", download_path=tmp_path, output_name="made")
    (result,) = tmp_path.rglob("result.txt")
    assert result.read_text() == "hamham"
    ml_client.jobs.download("first", download_path=tmp_path / "all", all=True)
    assert any("step 3" in file.read_text() for file in (tmp_path / "all").rglob("std_log.txt"))
    assert "first" in [found.name for found in ml_client.jobs.list()]


def test_the_model_of_a_jobs_output(ml_client, job, tmp_path):
    from azure.ai.ml.entities import Model

    ml_client.jobs.create_or_update(job("for-a-model"))
    status_becomes(ml_client, "for-a-model", "Completed")
    made = ml_client.models.create_or_update(
        Model(name="of-a-job", path="azureml://jobs/for-a-model/outputs/made", type="custom_model")
    )
    ml_client.models.download(made.name, made.version, download_path=tmp_path)
    assert [file.read_text() for file in tmp_path.rglob("result.txt")] == ["hamham"]


def test_a_job_that_fails(ml_client, job, capsys):
    from azure.ai.ml.exceptions import JobException

    ml_client.jobs.create_or_update(job("failing", script="nothing.py"))
    with pytest.raises(JobException):
        ml_client.jobs.stream("failing")
    assert "nothing.py" in capsys.readouterr().out
    assert ml_client.jobs.get("failing").status == "Failed"


def test_cancel(ml_client, job):
    ml_client.jobs.create_or_update(job("long", steps=1000))
    status_becomes(ml_client, "long", "Running")
    ml_client.jobs.begin_cancel("long").result()
    assert status_becomes(ml_client, "long", "Canceled", "Failed") == "Canceled"


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("no-compute", {"compute": "nobody"}, "nobody could not be found"),
        ("bad name!", {}, "job name"),
    ],
)
def test_what_the_service_refuses(ml_client, job, name, changes, said):
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as refused:
        ml_client.jobs.create_or_update(job(name, **changes))
    assert refused.value.status_code == 400
    assert said in str(refused.value)


def test_a_name_that_is_taken(ml_client, job):
    from azure.core.exceptions import HttpResponseError

    ml_client.jobs.create_or_update(job("taken"))
    with pytest.raises(HttpResponseError, match="already exists"):
        ml_client.jobs.create_or_update(job("taken", script="other.py"))


def test_a_preempted_job_goes_on_from_its_checkpoint(ml_client, job, rehearsal, capsys):
    rehearsal.refuse("preempt", times=1)
    ml_client.jobs.create_or_update(job("preempted", steps=12, pause=0.3, compute="jobs-cheap"))
    ml_client.jobs.stream("preempted")
    said = capsys.readouterr().out
    assert "begins at 0 with ham" in said
    assert "was preempted" in said
    begins = [int(line.split()[2]) for line in said.splitlines() if line.startswith("begins at")]
    assert len(begins) == 2
    assert begins[1] > 0
    # each step was done once, or again because its checkpoint was not there yet; none was left out
    steps = [int(line.split()[1]) for line in said.splitlines() if line.startswith("step ")]
    assert sorted(set(steps)) == list(range(1, 13))
    assert ml_client.jobs.get("preempted").status == "Completed"


def test_a_lost_node_fails_the_job_and_keeps_its_checkpoints(ml_client, job, rehearsal):
    rehearsal.refuse("node-loss", times=1)
    ml_client.jobs.create_or_update(job("lost", steps=1000, pause=0.3))
    assert status_becomes(ml_client, "lost", "Failed", "Completed") == "Failed"


@pytest.mark.parametrize("refusal", ["job-fails", "image-pull", "storage-write"])
def test_what_can_be_switched_on(ml_client, job, rehearsal, refusal, capsys):
    from azure.ai.ml.exceptions import JobException

    if refusal == "storage-write":
        # else the code could not be uploaded
        ml_client.jobs.create_or_update(job(f"with-{refusal}", steps=1000))
        status_becomes(ml_client, f"with-{refusal}", "Running")
        rehearsal.refuse(refusal)
    else:
        rehearsal.refuse(refusal, times=1)
        ml_client.jobs.create_or_update(job(f"with-{refusal}"))
    with pytest.raises(JobException) as failed:
        ml_client.jobs.stream(f"with-{refusal}")
    expected = {"job-fails": "status code 1", "image-pull": "pull", "storage-write": "not authorized"}[refusal]
    assert expected in str(failed.value) + capsys.readouterr().out


def test_jobs_wait_for_a_node(ml_client, job, cluster):
    cluster("jobs-wait")
    for number in range(3):
        ml_client.jobs.create_or_update(job(f"waits-{number}", steps=1000, compute="jobs-wait"))
    try:
        for number in range(2):
            status_becomes(ml_client, f"waits-{number}", "Running")
        assert ml_client.jobs.get("waits-2").status == "Queued"
        ml_client.jobs.begin_cancel("waits-0").result()
        status_becomes(ml_client, "waits-2", "Running")
    finally:
        for number in range(3):
            ml_client.jobs.begin_cancel(f"waits-{number}").result()
        for number in range(3):
            status_becomes(ml_client, f"waits-{number}", "Canceled")
