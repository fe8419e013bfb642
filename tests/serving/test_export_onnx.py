"""Exporting to ONNX: what is published, what the gate refuses, and what is left behind when it goes wrong.

python -m pytest tests/serving/test_export_onnx.py
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.model_folder import read
from tests.serving.models import HELD_OUT, PRECISIONS, ROOT


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "serving.export_onnx", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def exports(model: Path) -> list[str]:
    """Everything beside the weights, hidden folders of work included."""
    return sorted(path.name for path in (model / "artifacts").iterdir() if path.name != "weights")


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def wreck(model: Path) -> None:
    """Weights that no four bits can hold: a few outliers that dwarf all others of their block."""
    import torch
    from safetensors.torch import load_file, save_file

    file = model / "artifacts" / "weights" / "model.safetensors"
    weights = load_file(file)
    for name, weight in weights.items():
        if name.endswith("o_proj.weight"):
            # a direction that attention hardly uses, so that float32 still answers
            weight[:, ::16] += 8 * weight.abs().max() * torch.sign(torch.randn(weight[:, ::16].shape))
    save_file(weights, file, metadata={"format": "pt"})


def test_a_fine_tuned_model_passes_the_gate_in_every_precision(exported_model):
    found = read(exported_model)
    assert list(found.onnx) == ["int4", "int8", "float32"]
    assert exports(exported_model) == sorted(f"onnx-{precision}" for precision in PRECISIONS)
    sizes = {}
    for precision, folder in found.onnx.items():
        quality = json.loads((folder / "quality.json").read_text())
        assert quality["precision"] == precision
        assert quality["forced"] is False
        sizes[precision] = sum(file.stat().st_size for file in folder.iterdir())
        if precision != "float32":
            assert quality["passed"] is True
            assert quality["questions"] == 99
            assert 0.9 < quality["perplexity_ratio"] <= quality["max_perplexity_ratio"]
            assert quality["agreement"] >= quality["min_agreement"]
            assert 1 < quality["perplexity_float32"] < 1.2
        assert not (folder / "tokenizer.json").exists()
    assert sizes["int4"] < sizes["int8"] < sizes["float32"]


def test_the_gate_refuses_a_model_that_four_bits_spoil_unless_forced(model):
    wreck(model)
    done = run(model, "--precision", "int4", "--held-out", HELD_OUT, "--questions", 24)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: int4 is not published: ")
    assert "--force" in line
    assert "Traceback" not in done.stdout + done.stderr
    # both widths of block were tried
    assert {"exporting int4, block size 128", "exporting int4, block size 32"} <= set(done.stdout.splitlines())
    assert exports(model) == []
    forced = run(model, "--precision", "int4", "--held-out", HELD_OUT, "--questions", 24, "--force")
    assert forced.returncode == 0, forced.stderr
    quality = json.loads((model / "artifacts" / "onnx-int4" / "quality.json").read_text())
    assert (quality["passed"], quality["forced"]) == (False, True)


def test_limits_can_be_set_and_an_earlier_export_survives_a_refusal(model):
    first = run(model, "--precision", "int8", "--held-out", HELD_OUT, "--questions", 8)
    assert first.returncode == 0, first.stderr
    assert "int8" in first.stdout.splitlines()[-1]
    before = {file.name: file.read_bytes() for file in (model / "artifacts" / "onnx-int8").iterdir()}
    refused = run(model, "--precision", "int8", "--held-out", HELD_OUT, "--questions", 8, "--max-perplexity-ratio", 0.5)
    assert refused.returncode == 1
    assert "0.5 is allowed" in refused.stderr
    assert {file.name: file.read_bytes() for file in (model / "artifacts" / "onnx-int8").iterdir()} == before
    assert exports(model) == ["onnx-int8"]


def test_of_several_precisions_all_are_published_or_none(model):
    wreck(model)
    limits = ("--held-out", HELD_OUT, "--questions", 24)
    done = run(model, "--precision", "float32", "--precision", "int4", *limits)
    assert done.returncode == 1
    assert exports(model) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--questions", 0),
        ("--questions", -1),
        ("--min-agreement", 1.5),
        ("--min-agreement", "nan"),
        ("--max-perplexity-ratio", "nan"),
        ("--max-perplexity-ratio", 0),
    ],
)
def test_limits_that_judge_nothing_are_refused(model, option, value):
    done = run(model, "--precision", "int4", "--held-out", HELD_OUT, option, value)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {option} ")
    assert exports(model) == []


def test_an_architecture_that_cannot_be_exported_is_named_in_one_line(model):
    file = model / "artifacts" / "weights" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"architectures": ["NoSuchForCausalLM"]}))
    done = run(model, "--precision", "float32")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: onnxruntime-genai cannot export ")
    assert exports(model) == []


def test_exports_of_one_model_take_turns(model):
    artifacts = os.open(model / "artifacts", os.O_RDONLY)
    fcntl.flock(artifacts, fcntl.LOCK_EX)
    done = run(model, "--precision", "float32")
    assert done.returncode == 1
    assert "another export" in done.stderr
    os.close(artifacts)


def test_what_a_killed_export_left_is_put_right(model):
    artifacts = model / "artifacts"
    (artifacts / ".onnx-work-killed" / "int4-128").mkdir(parents=True)
    # killed between putting an export aside and putting the new one in its place
    (artifacts / ".onnx-int8.old").mkdir()
    (artifacts / ".onnx-int8.old" / "model.onnx").write_bytes(b"as it was")
    done = run(model, "--precision", "float32")
    assert done.returncode == 0, done.stderr
    assert exports(model) == ["onnx-float32", "onnx-int8"]
    assert (artifacts / "onnx-int8" / "model.onnx").read_bytes() == b"as it was"


def test_every_finding_is_told_at_once(model, tmp_path):
    for file in (model / "artifacts" / "weights").glob("*.safetensors"):
        file.rename(tmp_path / file.name)
    (model / "artifacts" / "onnx-int8").mkdir()
    (model / "artifacts" / "onnx-int8" / "model.onnx").touch()
    done = run(model, "--precision", "int4")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "safetensors" in done.stderr
    assert "--held-out" in done.stderr


def test_bad_conversations_are_named_by_line(model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    good = HELD_OUT.read_text(encoding="utf-8").splitlines()[0]
    rows.write_text(
        "\n".join([good, "{", '{"messages": []}', good, '{"messages": [{"role": "user", "content": "?"}]}'])
    )
    done = run(model, "--held-out", rows)
    assert done.returncode == 2
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [f"{rows}:{line}" for line in (2, 3, 5)]
    assert run(model, "--held-out", tmp_path / "none.jsonl").returncode == 2
    assert run(tmp_path / "nothing").returncode == 2
    assert exports(model) == []


def test_ctrl_c_leaves_nothing_behind(model):
    command = [sys.executable, "-m", "serving.export_onnx", str(model), "--held-out", str(HELD_OUT)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        # the work has begun
        assert process.stdout.readline().startswith("exporting")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "stopped; nothing was changed\n"
    assert exports(model) == []


def test_help_has_examples():
    done = run("--help")
    assert done.returncode == 0
    assert "--held-out" in done.stdout
    assert "runs/latest/model" in done.stdout
