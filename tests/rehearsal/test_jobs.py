"""Command jobs through the real SDK: they really run, their log is streamed, what they make is there afterwards."""

import json
import threading

import pytest

from devtools.rehearsal import session
from devtools.rehearsal.building import REPOSITORY, label
from tests.rehearsal.small_jobs import SmallJobs, small_jobs

#: Says what it was given, and leaves something in each of the places that are kept.
TELL = """
import json, os, pathlib, sys

def seen(value):
    path = pathlib.Path(value)
    if path.is_dir():
        return {str(one.relative_to(path)): one.read_text() for one in path.rglob("*") if one.is_file()}
    return path.read_text() if path.is_file() else value

told = dict(word.split("=", 1) for word in sys.argv[1:])
outputs = {name: told.pop(name) for name in [*told] if name.startswith("to_")}
print("told", json.dumps({name: seen(value) for name, value in told.items()}), flush=True)
print("around", json.dumps({name: value for name, value in os.environ.items() if name.startswith(("AZUREML", "MY_"))}))
print("beside", pathlib.Path("work.py").is_file(), flush=True)
for name, place in outputs.items():
    target = pathlib.Path(place) / "made.txt" if pathlib.Path(place).is_dir() else pathlib.Path(place)
    target.write_text(name)
pathlib.Path("outputs/inside.txt").write_text("an artifact")
"""
ENDLESS = """
import pathlib, signal, sys, time

def leave(*_):
    pathlib.Path(sys.argv[1], "goodbye.txt").write_text("in time")
    print("goodbye", flush=True)
    raise SystemExit(0)

signal.signal(signal.SIGTERM, leave)
print("begun", flush=True)
while True:
    time.sleep(0.1)
"""
DOCKERFILE = """
FROM phikit-runtime:cpu
ENV MY_IMAGE=built-here
"""


@pytest.fixture(scope="module")
def jobs(request) -> SmallJobs:
    return small_jobs(request)


def told(jobs: SmallJobs, name: str, what: str = "told") -> dict:
    """A line of JSON of a job's log."""
    line = next(line for line in jobs.log(name).splitlines() if line.startswith(f"{what} "))
    return json.loads(line.removeprefix(f"{what} "))


def folder_output(**more):
    from azure.ai.ml import Output

    return Output(type="uri_folder", **more)


def test_a_job_from_submit_to_its_outputs(jobs, tmp_path, capsys):
    submitted = jobs.submit(
        "first",
        TELL,
        arguments="greeting=hello to_made=${{outputs.made}}",
        outputs={"made": folder_output()},
        environment_variables={"MY_COLOUR": "blue"},
        display_name="the first one",
    )
    assert submitted.status == "NotStarted"
    assert submitted.services["Studio"].endpoint.startswith("https://ml.azure.com/runs/first")
    jobs.client.jobs.stream("first")
    assert 'told {"greeting": "hello"}' in capsys.readouterr().out
    done = jobs.client.jobs.get("first")
    assert (done.status, done.experiment_name, done.display_name) == ("Completed", "small", "the first one")
    around = told(jobs, "first", "around")
    assert around["MY_COLOUR"] == "blue"
    assert around["AZUREML_RUN_ID"] == "first"
    assert around["AZUREML_ARM_WORKSPACE_NAME"] == "rehearsal"
    assert "beside True" in jobs.log("first")
    jobs.client.jobs.download("first", download_path=tmp_path, output_name="made")
    assert (tmp_path / "named-outputs" / "made" / "made.txt").read_text() == "to_made"
    jobs.client.jobs.download("first", download_path=tmp_path / "all", all=True)
    artifacts = tmp_path / "all" / "artifacts"
    assert "told" in (artifacts / "user_logs" / "std_log.txt").read_text()
    assert "exit code 0" in (artifacts / "system_logs" / "lifecycler" / "lifecycler.log").read_text()
    assert (artifacts / "outputs" / "inside.txt").read_text() == "an artifact"
    times = jobs.details("first")
    assert submitted.creation_context.created_at.isoformat() < times["startTimeUtc"] < times["endTimeUtc"]


def test_inputs_of_every_kind(jobs, tmp_path):
    from azure.ai.ml import Input
    from azure.ai.ml.entities import Data, Model

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: own\n")
    (tmp_path / "file with a blank.txt").write_text("a file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.txt").write_text("in a folder")
    data = jobs.client.data.create_or_update(
        Data(name="inputs", version="7", path=str(tmp_path / "folder"), type="uri_folder")
    )
    model = jobs.client.models.create_or_update(
        Model(name="for-a-job", version="1", path=str(tmp_path / "model"), type="mlflow_model")
    )
    jobs.submit("makes", TELL, arguments="to_it=${{outputs.it}}", outputs={"it": folder_output()})
    assert jobs.ends("makes") == "Completed"
    made = "azureml://jobs/makes/outputs/it"
    inputs = {
        "number": 5,
        "text": "word",
        "truth": True,
        "file": Input(type="uri_file", path=str(tmp_path / "file with a blank.txt")),
        "folder": Input(type="uri_folder", path=str(tmp_path / "folder")),
        "asset": Input(type="uri_folder", path="azureml:inputs:7"),
        "latest": Input(type="uri_folder", path="inputs@latest"),
        "model": Input(type="mlflow_model", path=f"azureml:{model.name}:{model.version}"),
        "store": Input(type="uri_folder", path="azureml://datastores/workspaceblobstore/paths/azureml/makes/it/"),
        "job": Input(type="uri_folder", path=made),
        "one": Input(type="uri_file", path="azureml://datastores/workspaceblobstore/paths/azureml/makes/it/made.txt"),
        "address": Input(type="uri_folder", path=data.path, mode="direct"),
    }
    # (nobody quotes a path: a blank in one is the command's to cope with)
    words = " ".join(f"'{name}=${{{{inputs.{name}}}}}'" for name in inputs)
    jobs.submit("eats", TELL, arguments=words, inputs=inputs)
    assert jobs.ends("eats") == "Completed", jobs.log("eats")
    seen = told(jobs, "eats")
    assert (seen["number"], seen["text"], seen["truth"]) == ("5", "word", "True")
    assert seen["file"] == "a file"
    assert seen["folder"] == seen["asset"] == seen["latest"] == {"inner.txt": "in a folder"}
    assert set(seen["model"]) == {"MLmodel"}
    assert seen["store"] == seen["job"] == {"made.txt": "to_it"}
    assert seen["one"] == "to_it"
    assert seen["address"].startswith("azureml://")


def test_outputs_of_every_kind(jobs, tmp_path):
    from azure.ai.ml import Input, Output

    place = "azureml://datastores/workspaceblobstore/paths/kept/${{name}}/${{output_name}}"
    outputs = {
        "file": Output(type="uri_file"),
        "placed": folder_output(path=place),
        "placed_file": Output(type="uri_file", path=f"{place}.txt"),
        "named": folder_output(name="made-by-a-job"),
        "model": Output(type="custom_model", name="model-of-a-job", version="3"),
    }
    words = " ".join(f"to_{name}=${{{{outputs.{name}}}}}" for name in outputs)
    jobs.submit("gives", TELL, arguments=words, outputs=outputs)
    assert jobs.ends("gives") == "Completed", jobs.log("gives")
    assert "kept/gives/placed" in jobs.client.jobs.get("gives").outputs["placed"].path
    # (azure-ai-ml 1.35 downloads what lies at the default place alone, and breaks over outputs that are models)
    jobs.client.jobs.download("gives", download_path=tmp_path, output_name="named")
    assert (tmp_path / "named-outputs" / "named" / "made.txt").read_text() == "to_named"
    inputs = {name: Input(type=one.type, path=f"azureml://jobs/gives/outputs/{name}") for name, one in outputs.items()}
    inputs["data"] = Input(type="uri_folder", path="azureml:azureml_gives_output_data_placed:1")
    words = " ".join(f"{name}=${{{{inputs.{name}}}}}" for name in inputs)
    jobs.submit("takes", TELL, arguments=words, inputs=inputs)
    assert jobs.ends("takes") == "Completed", jobs.log("takes")
    assert told(jobs, "takes") == {
        "file": "to_file",
        "placed": {"made.txt": "to_placed"},
        "placed_file": "to_placed_file",
        "named": {"made.txt": "to_named"},
        "model": {"made.txt": "to_model"},
        "data": {"made.txt": "to_placed"},
    }
    named = jobs.client.data.get("made-by-a-job", label="latest")
    assert (named.type, named.version) == ("uri_folder", "1")
    model = jobs.client.models.get("model-of-a-job", "3")
    assert (model.type, model.job_name) == ("custom_model", "gives")


def test_the_model_of_a_jobs_output(jobs, tmp_path):
    from azure.ai.ml.entities import Model

    jobs.submit("for-a-model", TELL, arguments="to_it=${{outputs.it}}", outputs={"it": folder_output()})
    assert jobs.ends("for-a-model") == "Completed"
    for name, path in (("named", "outputs/it"), ("artifacts", "outputs/artifacts/paths/outputs")):
        made = jobs.client.models.create_or_update(
            Model(name=f"of-{name}", path=f"azureml://jobs/for-a-model/{path}", type="custom_model")
        )
        jobs.client.models.download(made.name, made.version, download_path=tmp_path)
    assert sorted(file.read_text() for file in tmp_path.rglob("*.txt")) == ["an artifact", "to_it"]


def test_what_may_be_changed_of_a_job(jobs):
    submitted = jobs.submit("described", "print('done')", tags={"a": "1"})
    assert jobs.ends("described") == "Completed"
    jobs.client.jobs.update("described", display_name="anew", tags={"b": "2"})
    found = jobs.client.jobs.get("described")
    assert (found.display_name, found.tags) == ("anew", {"a": "1", "b": "2"})
    found.tags["c"] = "3"
    assert jobs.client.jobs.create_or_update(found).tags["c"] == "3"
    jobs.client.jobs.archive("described")
    assert submitted.name not in [one.name for one in jobs.client.jobs.list()]
    assert submitted.name in [one.name for one in jobs.client.jobs.list(list_view_type="ArchivedOnly")]
    jobs.client.jobs.restore("described")
    assert submitted.name in [one.name for one in jobs.client.jobs.list()]
    assert list(jobs.client.jobs.list(parent_job_name="described")) == []
    assert jobs.client.jobs.show_services("described") is None


def test_a_job_that_fails(jobs, capsys):
    from azure.ai.ml.exceptions import JobException

    jobs.submit("failing", "raise SystemExit(7)", arguments="|| python nothing.py")
    with pytest.raises(JobException, match="exited with status code 2"):
        jobs.client.jobs.stream("failing")
    assert "nothing.py" in capsys.readouterr().out
    assert jobs.client.jobs.get("failing").status == "Failed"


def test_a_log_that_is_long(jobs):
    jobs.submit("long-log", "for number in range(40_000):\n    print(number, 'ö' * 20)")
    assert jobs.ends("long-log") == "Completed"
    lines = jobs.log("long-log").splitlines()
    assert len(lines) == 40_000
    assert lines[-1] == f"39999 {'ö' * 20}"


def test_a_canceled_job_may_say_goodbye(jobs, tmp_path):
    jobs.submit("canceled", ENDLESS, arguments="${{outputs.out}}", outputs={"out": folder_output()})
    jobs.says("canceled", "begun")
    jobs.client.jobs.begin_cancel("canceled").result()
    assert jobs.ends("canceled") == "Canceled"
    assert "goodbye" in jobs.log("canceled")
    jobs.client.jobs.download("canceled", download_path=tmp_path, output_name="out")
    assert (tmp_path / "named-outputs" / "out" / "goodbye.txt").read_text() == "in time"
    # (one that has ended stays as it is)
    jobs.client.jobs.begin_cancel("canceled").result()
    assert jobs.client.jobs.get("canceled").status == "Canceled"


def test_a_job_that_takes_longer_than_it_may(jobs):
    from azure.ai.ml.entities import CommandJobLimits

    job = jobs.make("limited", ENDLESS, arguments=".")
    job.limits = CommandJobLimits(timeout=1)
    jobs.client.jobs.create_or_update(job)
    assert jobs.ends("limited") == "Canceled"
    assert "longer than its limit of 1 s" in jobs.log("limited")


def test_jobs_wait_for_a_node(jobs):
    compute = jobs.cluster("jobs-wait", max_instances=1)
    for number in range(3):
        jobs.submit(f"waits-{number}", ENDLESS, arguments=".", compute=compute)
    jobs.becomes("waits-0", "Running")
    for number in (1, 2):
        jobs.becomes(f"waits-{number}", "Queued")
    jobs.client.jobs.begin_cancel("waits-1").result()
    assert jobs.ends("waits-1") == "Canceled"
    jobs.client.jobs.begin_cancel("waits-0").result()
    jobs.becomes("waits-2", "Running")
    jobs.client.compute.begin_delete(compute).result()
    jobs.client.jobs.begin_cancel("waits-2").result()
    assert [jobs.ends(f"waits-{number}") for number in (0, 2)] == ["Canceled", "Canceled"]


def test_two_that_begin_at_once_in_a_new_experiment(jobs):
    names = [f"at-once-{number}" for number in range(2)]
    made = [jobs.make(name, "print('done')", experiment_name="at-once") for name in names]
    threads = [threading.Thread(target=jobs.client.jobs.create_or_update, args=(one,)) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [jobs.ends(name) for name in names] == ["Completed", "Completed"]


@pytest.mark.docker
def test_an_environment_that_brings_its_dockerfile(jobs, engine, rehearsal, tmp_path):
    from azure.ai.ml.entities import BuildContext, Environment

    if session.running(rehearsal.home)["runner"] != "docker":
        pytest.skip("PHIKIT_REHEARSAL_RUNNER: jobs are processes, whatever their images")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    jobs.submit("built", TELL, environment=Environment(name="built-here", build=BuildContext(path=str(tmp_path))))
    assert jobs.ends("built") == "Completed", jobs.log("built")
    assert told(jobs, "built", "around")["MY_IMAGE"] == "built-here"
    (image,) = engine.images.list(filters={"label": label(rehearsal.home)})
    assert image.tags[0].startswith(REPOSITORY)
    (tmp_path / "Dockerfile").write_text("FROM phikit-runtime:cpu\nRUN exit 3\n")
    jobs.submit("unbuilt", TELL, environment=Environment(name="built-there", build=BuildContext(path=str(tmp_path))))
    assert jobs.ends("unbuilt") == "Failed"
    assert jobs.details("unbuilt")["error"]["error"]["code"] == "ImageBuildFailure"
