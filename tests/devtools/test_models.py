"""Which model directory a command means, the conversations that belong to it, and who may read it."""

import json
import os
from pathlib import Path

import pytest

from devtools import models
from devtools.data import digest
from devtools.errors import BadInput


def add_run(root: Path, name: str, *, latest: bool = False, model: bool = True) -> Path:
    folder = root / "runs" / name
    (folder / "model").mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    if model:
        (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    if latest:
        (root / "runs" / "latest").symlink_to(name)
    return folder / "model"


def test_the_model_is_the_one_asked_for_else_the_setting_else_the_latest(tmp_path):
    first, second = add_run(tmp_path, "first"), add_run(tmp_path, "second", latest=True)
    assert models.choose(None, None, None, tmp_path) == second
    assert models.choose("latest", None, str(first), tmp_path) == second
    assert models.choose("first", None, str(second), tmp_path) == first
    assert models.choose(None, str(first), str(second), tmp_path) == first
    assert models.choose(None, None, str(first), tmp_path) == first
    # as deep as the server looks
    assert models.choose(None, str(first.parent), None, tmp_path) == first


@pytest.mark.parametrize(
    ("run", "model", "words"),
    [
        ("third", None, "runs/third: there is no such run"),
        ("half", None, "runs/half: has no model, the run is unfinished"),
        (None, "nowhere", "--model nowhere: there is no such folder"),
        (None, "runs/first/job.json", "--model runs/first/job.json: is a file"),
        (None, "empty", "--model empty: no MLmodel file there"),
        (None, "runs", "--model runs: holds several models"),
        ("first", "runs/first/model", "--run and --model: name one of them"),
        (None, None, "runs/latest: no run is finished yet"),
    ],
)
def test_what_is_no_model_is_said_with_what_would_do(tmp_path, monkeypatch, run, model, words):
    add_run(tmp_path, "first")
    add_run(tmp_path, "second")
    add_run(tmp_path, "half", model=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as refused:
        models.choose(run, model, None, tmp_path)
    (finding,) = refused.value.findings
    assert finding.startswith(words)


def test_the_held_out_file_is_known_by_its_digest(tmp_path):
    model = add_run(tmp_path, "first")
    file = tmp_path / "data" / "mine" / "test_data.jsonl"
    file.parent.mkdir(parents=True)
    (tmp_path / "data" / "test_data.jsonl").write_text("of another run\n")
    file.write_text("a row\n")
    told = digest(file)
    (model / "MLmodel").write_text(json.dumps({"metadata": {models.HELD_OUT_DIGEST: told}}))
    assert models.held_out(model, tmp_path) == file
    # where the run found it, wherever that is
    elsewhere = file.rename(tmp_path / "elsewhere.jsonl")
    assert models.held_out(model, tmp_path) is None
    (model.parent / "job.json").write_text(json.dumps({"files": {"eval_file": str(elsewhere)}}))
    assert models.held_out(model, tmp_path) == elsewhere
    elsewhere.write_text("another row\n")
    assert models.held_out(model, tmp_path) is None


def test_a_model_is_opened_up_as_far_as_the_umask_goes(tmp_path):
    model = add_run(tmp_path, "first")
    weights = model / "artifacts" / "weights"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").touch(mode=0o600)
    (model / "artifacts").chmod(0o700)
    before = os.umask(0o027)
    try:
        models.open_up(model)
        assert (model / "artifacts").stat().st_mode & 0o777 == 0o750
        assert (weights / "model.safetensors").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
    models.open_up(tmp_path / "nowhere")
