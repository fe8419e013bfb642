"""What is refused of a job: by the checks that the service makes, and by what was switched on; and jobs of an emulator
that went."""

import shutil

import pytest

from devtools.rehearsal import WORKSPACE, resource_id, session
from devtools.rehearsal.jobs.outputs import _Kept
from devtools.rehearsal.jobs.plan import Place
from tests.rehearsal.raw import Arm
from tests.rehearsal.small_jobs import SmallJobs, small_jobs

BASE = resource_id("workspaces", WORKSPACE)
#: Writes a checkpoint a step, and goes on from the last one that it finds.
TRAIN = """
import pathlib, sys, time

out, steps, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
done = max((int(path.parent.name.split("-")[1]) for path in out.glob("checkpoint-*/state.txt")), default=0)
print("begins at", done, flush=True)
for step in range(done + 1, steps + 1):
    folder = out / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    (folder / "state.txt").write_text(str(step))
    print("step", step, flush=True)
    time.sleep(pause)
(out / "result.txt").write_text(f"{steps} steps")
"""
WAIT = "import time\nprint('begun', flush=True)\ntime.sleep(600)"


@pytest.fixture(scope="module")
def jobs(request) -> SmallJobs:
    return small_jobs(request)


@pytest.fixture(scope="module")
def cheap(jobs) -> str:
    return jobs.cluster("jobs-cheap", tier="low_priority")


@pytest.fixture(scope="module")
def accepted(jobs) -> dict:
    """The body of a job that is taken, and ended."""
    jobs.submit("accepted", "print('done')")
    assert jobs.ends("accepted") == "Completed"
    return Arm().get(f"{BASE}/jobs/accepted").json()


def train(jobs: SmallJobs, name: str, steps: int = 12, pause: float = 0.3, **more):
    """Submit a job that writes checkpoints."""
    from azure.ai.ml import Output

    place = more.pop("place", None)
    return jobs.submit(
        name,
        TRAIN,
        arguments=f"${{{{outputs.run}}}} {steps} {pause}",
        outputs={"run": Output(type="uri_folder", path=place)},
        **more,
    )


def begins(log: str) -> list[int]:
    return [int(line.split()[2]) for line in log.splitlines() if line.startswith("begins at")]


def error(jobs: SmallJobs, name: str) -> dict:
    return jobs.details(name)["error"]["error"]


@pytest.mark.parametrize(
    ("name", "changes", "status", "said"),
    [
        ("bad name", {}, 400, "job name bad name"),
        ("-dash", {}, 400, "job name -dash"),
        ("no-compute", {"computeId": f"{BASE}/computes/nobody"}, 400, "Compute with name nobody could not be found"),
        ("nowhere", {"computeId": None}, 400, "could not be found"),
        ("no-command", {"command": " "}, 400, "Command is required"),
        ("no-environment", {"environmentId": None}, 400, "EnvironmentId is required"),
        ("other-environment", {"environmentId": f"{BASE}/environments/none/versions/1"}, 404, "none:1"),
        ("other-code", {"codeId": f"{BASE}/codes/none/versions/1"}, 404, "none:1"),
        (
            "other-data",
            {"inputs": {"a": {"jobInputType": "uri_file", "uri": f"{BASE}/data/none/versions/1"}}},
            404,
            "The input a was not found",
        ),
        (
            "short-data",
            {"inputs": {"a": {"jobInputType": "uri_file", "uri": "azureml:none:1"}}},
            404,
            "none:1",
        ),
        ("no-path", {"inputs": {"a": {"jobInputType": "uri_file"}}}, 400, "The input a has no path"),
        (
            "other-store",
            {"inputs": {"a": {"jobInputType": "uri_file", "uri": "azureml://datastores/none/paths/a"}}},
            404,
            "Datastore none",
        ),
        (
            "elsewhere",
            {"inputs": {"a": {"jobInputType": "uri_file", "uri": "https://example.com/a"}}},
            501,
            "goes nowhere else",
        ),
        ("undefined-input", {"command": "python ${{inputs.corpus}}"}, 400, "inputs.corpus"),
        ("undefined-output", {"command": "python ${{ outputs.made }} ${{inputs.b}}"}, 400, "inputs.b, outputs.made"),
        ("other-words", {"command": "python ${{search_space.rate}}"}, 400, "search_space.rate"),
        ("many-nodes", {"resources": {"instanceCount": 99}}, 400, "asks for 99 nodes"),
        ("no-number", {"resources": {"instanceCount": "two"}}, 400, "no whole number"),
        ("two-nodes", {"resources": {"instanceCount": 2}}, 501, "one process on one node"),
        (
            "two-processes",
            {"distribution": {"distributionType": "PyTorch", "processCountPerInstance": 2}},
            501,
            "one process on one node",
        ),
        ("sweeping", {"jobType": "Sweep"}, 501, "jobs of type Sweep"),
        ("long", {"limits": {"jobLimitsType": "Command", "timeout": "an hour"}}, 400, "timeout 'an hour'"),
        ("accepted", {"command": "python other.py"}, 400, "already exists"),
    ],
)
def test_what_the_service_refuses_at_once(accepted, name, changes, status, said):
    answer = Arm().put(f"{BASE}/jobs/{name}", {"properties": accepted["properties"] | changes})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    if name != "accepted":
        assert Arm().get(f"{BASE}/jobs/{name}").status_code == 404


def test_a_missing_compute_through_the_sdk(jobs):
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError, match="nobody could not be found") as refused:
        jobs.submit("no-compute", "print('done')", compute="nobody")
    assert refused.value.status_code == 400


def test_a_job_that_is_not_there(jobs):
    from azure.core.exceptions import ResourceNotFoundError

    for ask in (jobs.client.jobs.get, jobs.client.jobs.stream, jobs.client.jobs.begin_cancel):
        with pytest.raises(ResourceNotFoundError):
            ask("nobody")


def test_only_what_has_ended_can_be_deleted(jobs):
    jobs.submit("deleted", WAIT)
    jobs.becomes("deleted", "Running")
    assert Arm().call("DELETE", f"{BASE}/jobs/deleted").status_code == 409
    jobs.client.jobs.begin_cancel("deleted").result()
    assert jobs.ends("deleted") == "Canceled"
    assert Arm().call("DELETE", f"{BASE}/jobs/deleted").status_code == 200
    assert Arm().get(f"{BASE}/jobs/deleted").status_code == 404


def test_an_input_that_is_not_in_the_storage(jobs):
    from azure.ai.ml import Input

    place = "azureml://datastores/workspaceblobstore/paths/nothing/here.txt"
    jobs.submit("hungry", "", arguments="${{inputs.a}}", inputs={"a": Input(type="uri_file", path=place)})
    assert jobs.ends("hungry") == "Failed"
    assert error(jobs, "hungry")["code"] == "DataAccessError"


@pytest.mark.parametrize(
    ("refusal", "code", "said"),
    [
        ("job-fails", "UserError", "status code 1"),
        ("image-pull", "ImagePullFailed", "Failed to pull Docker image phikit-runtime:cpu"),
    ],
)
def test_what_can_be_switched_on(jobs, rehearsal, refusal, code, said):
    from azure.ai.ml.exceptions import JobException

    rehearsal.refuse(refusal, times=1)
    jobs.submit(f"with-{refusal}", "print('done')")
    with pytest.raises(JobException, match=said):
        jobs.client.jobs.stream(f"with-{refusal}")
    assert error(jobs, f"with-{refusal}")["code"] == code
    # (it was to happen once)
    jobs.submit(f"after-{refusal}", "print('done')")
    assert jobs.ends(f"after-{refusal}") == "Completed"


def test_a_storage_that_cannot_be_written(jobs, rehearsal):
    train(jobs, "unwritten", steps=1000)
    jobs.says("unwritten", "step 1")
    rehearsal.refuse("storage-write")
    assert jobs.ends("unwritten") == "Failed"
    assert error(jobs, "unwritten")["code"] == "AuthorizationPermissionMismatch"
    assert "not authorized" in jobs.log("unwritten")


def test_a_slow_node(jobs, rehearsal):
    rehearsal.refuse("slow", times=1, seconds=600)
    jobs.submit("slow", "print('done')")
    jobs.becomes("slow", "Preparing")
    jobs.client.jobs.begin_cancel("slow").result()
    assert jobs.ends("slow") == "Canceled"


def test_a_preempted_job_goes_on_from_its_checkpoint(jobs, cheap, rehearsal, tmp_path, capsys):
    rehearsal.refuse("preempt", times=1)
    train(jobs, "preempted", compute=cheap)
    jobs.client.jobs.stream("preempted")
    said = capsys.readouterr().out
    assert "was preempted" in said
    first, second = begins(said)
    assert first == 0
    assert second > 0
    # each step was done once, or again because its checkpoint was not there yet; none was left out
    steps = [int(line.split()[1]) for line in said.splitlines() if line.startswith("step ")]
    assert sorted(set(steps)) == list(range(1, 13))
    assert jobs.client.jobs.get("preempted").status == "Completed"
    jobs.client.jobs.download("preempted", download_path=tmp_path, output_name="run")
    assert len(list(tmp_path.rglob("state.txt"))) == 12


def test_a_dedicated_node_is_not_preempted(jobs, rehearsal):
    rehearsal.refuse("preempt", seconds=0)
    train(jobs, "dedicated", steps=4)
    assert jobs.ends("dedicated") == "Completed"
    assert begins(jobs.log("dedicated")) == [0]


def test_a_job_without_checkpoints_is_preempted_after_a_while(jobs, cheap, rehearsal):
    rehearsal.refuse("preempt", times=1, seconds=0.5)
    jobs.submit("without", "import time\nprint('begun', flush=True)\ntime.sleep(3)", compute=cheap)
    assert jobs.ends("without") == "Completed"
    assert jobs.log("without").count("begun") == 2


def test_another_job_goes_on_where_the_node_of_one_was_lost(jobs, rehearsal):
    place = "azureml://datastores/workspaceblobstore/paths/runs/lost-and-found"
    rehearsal.refuse("node-loss", times=1)
    train(jobs, "lost", place=place)
    assert jobs.ends("lost") == "Failed"
    assert error(jobs, "lost")["code"] == "NodeLost"
    train(jobs, "found", place=place)
    assert jobs.ends("found") == "Completed"
    assert begins(jobs.log("lost")) == [0]
    assert begins(jobs.log("found"))[0] > 0


def test_a_folder_that_goes_while_outputs_are_looked_at(tmp_path):
    place = Place("run", "container", "runs/1", False, "/mnt/run")
    kept = _Kept(place, tmp_path, restored=True)
    for name in ("checkpoint-1", "checkpoint-2"):
        (tmp_path / name / "state").mkdir(parents=True)
        (tmp_path / name / "state" / "state.txt").write_text(name)
    (tmp_path / "log.txt").write_text("kept")
    looking = kept.files()
    assert next(looking) == tmp_path / "log.txt"
    for name in ("checkpoint-1", "checkpoint-2"):
        shutil.rmtree(tmp_path / name)
    assert list(looking) == []


def test_jobs_of_an_emulator_that_goes(jobs, rehearsal):
    compute = jobs.cluster("jobs-restart", max_instances=1)
    train(jobs, "runs-on", steps=1000, compute=compute)
    jobs.says("runs-on", "step 2")
    jobs.submit("waits-on", "print('done')", compute=compute)
    jobs.becomes("waits-on", "Queued")
    session.end(rehearsal.home)
    session.ensure_up(rehearsal.home)
    # what ran has lost its node, what waited runs
    assert jobs.ends("runs-on") == "Failed"
    assert error(jobs, "runs-on")["code"] == "NodeLost"
    assert "step 1" in jobs.log("runs-on")
    assert jobs.ends("waits-on") == "Completed", jobs.log("waits-on")
