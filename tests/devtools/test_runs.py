"""The runs folder: which run a command goes on with, names, the link to the newest whole run, removal."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from devtools.errors import BadInput
from devtools.runs import Run, Runs, check_name

INPUTS = {"recipe": "tiny_cpu", "overrides": {"seed": 1}, "train_sha256": "abc"}


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path / "runs")


def finish(run: Run) -> None:
    (run.folder / "run.json").write_text(json.dumps({"state": "finished"}))


def test_the_same_inputs_go_on_with_the_unfinished_run(runs):
    first, is_new = runs.claim(INPUTS, "tiny_cpu")
    assert is_new
    assert first.name.startswith("tiny_cpu-2")
    assert runs.claim(INPUTS, "tiny_cpu") == (first, False)
    other, is_new = runs.claim(INPUTS | {"train_sha256": "def"}, "tiny_cpu")
    assert is_new
    assert other != first
    finish(first)
    again, is_new = runs.claim(INPUTS, "tiny_cpu")
    assert is_new
    assert again.name not in (first.name, other.name)


def test_inputs_survive_their_file(runs):
    run, _ = runs.claim(INPUTS, "tiny_cpu", "one")
    assert json.loads((run.folder / "job.json").read_text())["inputs"] == INPUTS
    assert runs.claim(INPUTS, "tiny_cpu", "one") == (run, False)


def test_a_name_of_other_inputs_is_refused_and_says_which(runs):
    runs.claim(INPUTS, "tiny_cpu", "one")
    with pytest.raises(BadInput, match="begun with another overrides, train_sha256; choose another --name"):
        runs.claim(INPUTS | {"overrides": {}, "train_sha256": ""}, "tiny_cpu", "one")


def test_a_finished_name_and_a_foreign_folder_are_refused(runs):
    run, _ = runs.claim(INPUTS, "tiny_cpu", "one")
    finish(run)
    with pytest.raises(BadInput, match="is a finished run"):
        runs.claim(INPUTS, "tiny_cpu", "one")
    (runs.folder / "mlruns").mkdir()
    with pytest.raises(BadInput, match="is no run"):
        runs.claim(INPUTS, "tiny_cpu", "mlruns")


def test_a_runs_folder_that_is_a_file_is_one_finding(runs):
    runs.folder.write_text("")
    with pytest.raises(BadInput, match="cannot be made"):
        runs.claim(INPUTS, "tiny_cpu", "one")


def test_of_many_at_once_one_makes_the_folder(runs):
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: runs.claim(INPUTS, "tiny_cpu", "one"), range(32)))
    assert sum(is_new for _, is_new in claims) == 1
    assert sorted(path.name for path in runs.folder.iterdir()) == ["one"]


def test_latest_is_a_relative_link_that_moves(runs):
    first, _ = runs.claim(INPUTS, "a", "first")
    second, _ = runs.claim(INPUTS | {"recipe": "b"}, "b", "second")
    for run in (first, second):
        finish(run)
        runs.point_latest(run)
    link = runs.folder / "latest"
    assert str(link.readlink()) == "second"
    assert (link / "run.json").is_file()
    assert [run.name for run in runs.all()] == ["second", "first"]
    runs.remove("second")
    assert str(link.readlink()) == "first"
    runs.remove("first")
    assert not link.is_symlink()
    assert list(runs.folder.iterdir()) == []


def test_latest_never_replaces_what_is_no_link(runs):
    run, _ = runs.claim(INPUTS, "a", "first")
    (runs.folder / "latest").mkdir()
    with pytest.raises(BadInput, match="is no link"):
        runs.point_latest(run)


def test_withdrawing_keeps_whatever_was_written(runs):
    run, _ = runs.claim(INPUTS, "a", "first")
    (run.folder / "checkpoints").mkdir()
    runs.withdraw(run)
    assert run.folder.is_dir()
    (run.folder / "checkpoints").rmdir()
    runs.withdraw(run)
    assert not run.folder.exists()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "latest", "a b", "-x", "x" * 101, "é"])
def test_names_that_a_run_cannot_have(name):
    with pytest.raises(BadInput, match="must be letters"):
        check_name(name)


def test_damaged_files_do_not_hide_the_list(runs):
    run, _ = runs.claim(INPUTS, "a", "first")
    (run.folder / "run.json").write_text("{")
    (run.folder / "job.json").write_text("[]")
    assert [(found.name, found.state, found.metrics) for found in runs.all()] == [("first", "unfinished", {})]
