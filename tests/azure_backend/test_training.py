"""phikit azure train with a training of a second: jobs listed, followed, ended, given again; models registered once.

The real training, and what comes home of it: test_whole_way.py.
"""

import json

import pytest

TRAIN = ("azure", "train", "--yes")


def errors(done) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def jobs(running) -> dict[str, str]:
    return {name: body["properties"]["status"] for name, body in running.store.all("jobs")}


def test_a_second_submit_uploads_nothing(small):
    assert small.phikit(*TRAIN, "--name", "first").returncode == 0
    uploaded = small.uploads()
    for name in ("small_training.py", "train_data.jsonl", "test_data.jsonl"):
        assert any(path.endswith(name) for path in uploaded)
    assert small.phikit(*TRAIN, "--name", "second", "--set", "pause=0.2").returncode == 0
    assert small.uploads() == uploaded


def test_jobs_are_listed_and_shown(small):
    assert small.phikit(*TRAIN, "--name", "shown").returncode == 0
    listed = small.phikit("azure", "list")
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("shown-")]
    name, state, recipe, _ = line.split("\t")
    assert (state, recipe) == ("Completed", "tiny_cpu")
    for asked in (name, "shown"):
        done = small.phikit("azure", "status", asked)
        assert done.stdout.startswith(f"{name}\tCompleted\thttps://ml.azure.com/")
    assert small.phikit("azure", "logs", "shown").stdout.splitlines()[-1] == "done"
    assert "has ended already" in small.phikit("azure", "cancel", "shown").stderr


def test_a_job_is_left_and_brought_home_later(small):
    assert small.phikit(*TRAIN, "--name", "later", "--no-wait").returncode == 0
    record = json.loads((small.root / "runs" / "later" / "azure.json").read_text())
    assert small.phikit("azure", "logs", "later", "--follow").returncode == 0
    done = small.phikit(*TRAIN, "--name", "later")
    assert done.returncode == 0
    assert f"{record['jobs'][0]} is there (Completed)" in done.stderr
    assert (small.root / "runs" / "later" / "model" / "MLmodel").is_file()
    assert [name for name in jobs(small) if name.startswith("later-")] == record["jobs"]


def test_cancel_and_again(small):
    assert small.phikit(*TRAIN, "--name", "ended", "--no-wait", "--set", "steps=1000").returncode == 0
    assert small.phikit("azure", "cancel", "ended").returncode == 2
    assert small.phikit("azure", "cancel", "ended", "--yes").returncode == 0
    assert small.phikit("azure", "logs", "ended", "--follow").returncode == 1
    assert "Canceled" in small.phikit("azure", "status", "ended").stdout
    # whoever removes the run here is told of its job there
    gone = small.phikit("runs", "rm", "ended")
    assert gone.returncode == 0
    assert "was begun in the workspace rehearsal, where its job may go on" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "no good!"], "must be letters"),
        (["--name", "x" * 300], "must be letters"),
        (["--model", "."], "no config.json"),
        (["--recipe", "elsewhere.yaml"], "elsewhere.yaml"),
        (["--set", "steps"], "key=value"),
    ],
)
def test_bad_input_is_a_line_before_anything_is_sent(small, arguments, said):
    before = len(small.calls())
    done = small.phikit(*TRAIN, *arguments)
    assert done.returncode == 2
    (line,) = errors(done)
    assert said in line
    assert len(line) < 300
    assert len(small.calls()) == before


def test_what_lies_here_alone_is_refused(small, tmp_path):
    (tmp_path / "my.yaml").write_text("model_name_or_path: tiny\n")
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text("{}")
    done = small.phikit(*TRAIN, "--recipe", str(tmp_path / "my.yaml"), "--model", str(tmp_path / "my-model"))
    assert done.returncode == 2
    assert len(errors(done)) == 2


def test_data_that_changed_between_submit_and_retry(small):
    assert small.phikit(*TRAIN, "--name", "changed", "--no-wait").returncode == 0
    file = small.root / "data" / "train_data.jsonl"
    before = file.read_text()
    file.write_text(before * 2)
    try:
        done = small.phikit(*TRAIN, "--name", "changed")
    finally:
        file.write_text(before)
    assert done.returncode == 2
    assert "was begun with another train_sha256" in errors(done)[0]


def test_a_job_without_a_model(small):
    done = small.phikit(*TRAIN, "--name", "none", "--set", "with_model=false")
    assert done.returncode == 1
    assert "ended without a model" in errors(done)[0]
    assert not (small.root / "runs" / "none" / "run.json").exists()


def test_a_model_is_registered_once_with_its_lineage(small):
    assert small.phikit(*TRAIN, "--name", "registered").returncode == 0
    first = small.phikit("azure", "register", "--run", "registered")
    assert first.returncode == 0, first.stderr
    again = small.phikit("azure", "register", "--run", "registered")
    assert again.stdout == first.stdout
    name, version = first.stdout.strip().split(":")
    document = small.store.get("models", f"{name}/{version}")
    tags = document["properties"]["tags"]
    record = json.loads((small.root / "runs" / "registered" / "azure.json").read_text())
    assert tags["job"] == record["jobs"][-1]
    assert tags["run"] == "registered"
    assert tags["recipe"] == "tiny_cpu"
    assert {"train-sha256", "test-sha256", "image"} <= set(tags)
    assert record["jobs"][-1] in json.dumps(document)


def test_a_run_of_this_machine_is_registered_from_its_folder(small):
    runs = small.root / "runs"
    local = runs / "local"
    (local / "model").mkdir(parents=True)
    (local / "model" / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: none\n")
    (local / "job.json").write_text(json.dumps({"inputs": {"recipe": "tiny_cpu", "train_sha256": "abc"}}))
    (local / "run.json").write_text(json.dumps({"state": "finished"}))
    done = small.phikit("azure", "register", "--run", "local")
    assert done.returncode == 0, done.stderr
    name, version = done.stdout.strip().split(":")
    tags = small.store.get("models", f"{name}/{version}")["properties"]["tags"]
    assert (tags["run"], tags["train-sha256"]) == ("local", "abc")
    assert "job" not in tags
    missing = small.phikit("azure", "register", "--run", "nobody")
    assert missing.returncode == 2
