"""Whole runs of fine_tune.py: killed at any moment and started again, stopped, out of disk, diverged.

python -m pytest tests/e2e/test_fine_tune.py
"""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from errors import BAD_INPUT, FAILED, OK, STOPPED
from tests.training.program import DEADLINE, SHORT, small_disk

#: "To four digits": half of the fourth decimal.
SAME = {"abs": 5e-5, "rel": 0}


def state(run: Path) -> dict:
    path = run / "run.json"
    return json.loads(path.read_text()) if path.exists() else {}


def checkpoint(program, name: str, step: int | None = None):
    """Whether a run has a whole checkpoint, of a step or of any."""
    pattern = f"checkpoints/checkpoint-{step or '*'}/trainer_state.json"
    return lambda: any(path.stat().st_size for path in (program.runs / name).glob(pattern))


def assert_same_as_whole(program, curve, name: str) -> None:
    whole, resumed = program.metrics("whole"), program.metrics(name)
    for when in ("before", "after"):
        assert resumed[when] == pytest.approx(whole[when], **SAME), when
    for key in ("loss", "steps", "epochs"):
        assert resumed["train"][key] == pytest.approx(whole["train"][key], **SAME)
    for metric, points in curve("whole").items():
        steps, losses = zip(*points, strict=True)
        again_steps, again_losses = zip(*curve(name)[metric], strict=True)
        assert again_steps == steps, metric
        assert again_losses == pytest.approx(losses, **SAME), metric
    assert len(curve(name)["eval/loss"]) == SHORT["num_train_epochs"]


def assert_clean(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {".lock", "run.json", "report.html", "metrics.json", "loss_curve.png", "model", "base"}
    assert (folder / "model" / "MLmodel").is_file()


def test_killed_in_training(program, whole, curve):
    with program.running("killed", checkpoint(program, "killed")) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE) == -signal.SIGKILL
    assert not (program.runs / "killed" / "model").exists()
    assert not (program.runs / "killed" / "metrics.json").exists()
    result = program.run("killed")
    assert result.returncode == OK, result.stderr
    assert "going on from checkpoint-" in result.stdout
    assert "asking the base model" not in result.stderr, "it was asked before"
    assert_same_as_whole(program, curve, "killed")
    assert_clean(program.runs / "killed")


def test_killed_with_its_newest_checkpoint_cut_short(program, whole, curve):
    folder, each = program.runs / "cut" / "checkpoints", SHORT["save_steps"]
    with program.running("cut", checkpoint(program, "cut", 2 * each)) as process:
        process.kill()
        process.wait()
    states = folder.glob("checkpoint-*/trainer_state.json")
    newest = max(states, key=lambda path: int(path.parent.name.partition("-")[2]))
    for path in (newest, newest.with_name("model.safetensors")):
        os.truncate(path, path.stat().st_size // 2)
    result = program.run("cut")
    assert result.returncode == OK, result.stderr
    assert f"going on from checkpoint-{int(newest.parent.name.partition('-')[2]) - each}\n" in result.stdout
    assert_same_as_whole(program, curve, "cut")


def test_killed_while_the_base_model_is_asked(program, whole, curve):
    run = program.runs / "asked"
    for _ in range(5):  # on a busy machine the answers may be there before the signal is
        with program.running("asked", lambda: "mlflow_run_id" in state(run)) as process:
            process.kill()
            process.wait()
        if not (run / "before.json").exists():
            break
        shutil.rmtree(run)
    assert not (run / "before.json").exists() and not (run / "checkpoints").exists()
    result = program.run("asked")
    assert result.returncode == OK, result.stderr
    assert "going on" not in result.stdout
    assert_same_as_whole(program, curve, "asked")


def test_killed_after_training_and_again_while_exporting(program, whole, curve):
    run = program.runs / "exporting"
    last = program.metrics("whole")["train"]["steps"]
    with program.running("exporting", checkpoint(program, "exporting", last)) as process:
        process.kill()
        process.wait()
    assert not (run / "metrics.json").exists()
    with program.running("exporting", (run / ".model.partial").exists) as process:
        process.kill()
        process.wait()
    assert not (run / "model").exists(), "whole or not at all"
    result = program.run("exporting")
    assert result.returncode == OK, result.stderr
    assert f"going on from checkpoint-{last}" in result.stdout
    assert "training: " not in result.stderr or f"training: {last}/{last}" in result.stderr, "nothing is trained again"
    assert_same_as_whole(program, curve, "exporting")
    assert_clean(run)


def test_sigterm_saves_a_checkpoint_and_the_same_command_goes_on(program, whole, curve):
    run = program.runs / "stopped"

    def stop(when) -> str:
        with program.running("stopped", when) as process:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == STOPPED
        result = program.outcome("stopped", process)
        assert "Traceback" not in result.stderr and "error" not in result.stderr
        return result.stdout.splitlines()[-1]

    # once before there is a step to wait for, or in the first of them, and once in the midst of training
    assert "the same command goes on" in stop(lambda: "mlflow_run_id" in state(run))
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    last = stop(checkpoint(program, "stopped"))
    step = int(re.fullmatch(r"stopped at step (\d+) with a checkpoint; the same command goes on", last)[1])
    assert checkpoint(program, "stopped", step)()
    assert SHORT["save_steps"] < step < program.metrics("whole")["train"]["steps"]
    result = program.run("stopped")
    assert result.returncode == OK, result.stderr
    assert f"going on from checkpoint-{step}\n" in result.stdout
    assert_same_as_whole(program, curve, "stopped")


def failure(result) -> str:
    """The one line of a run that failed for a known reason."""
    assert result.returncode == FAILED, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.stderr.splitlines()[-1] == line
    return line


def test_loss_that_is_no_number_ends_in_one_line(program):
    line = failure(program.run("diverged", {"learning_rate": 1.0e9, "max_grad_norm": 0, "warmup_steps": 0}))
    assert re.search(r"is (nan|inf) at step \d+: lower learning_rate \(now 1e\+09\)", line)
    assert not (program.runs / "diverged" / "model").exists()


#: Fill the disk once the base model has been asked: the next that is written is a metric or a checkpoint.
FILL = 'for _ in $(seq 20000); do test -e "{run}/before.json" && break; sleep 0.02; done; cat /dev/zero > "{disk}/full"'


def test_full_disk_ends_in_one_line(program):
    disk = program.folder / "disk"
    run = disk / "runs" / "full"
    filler = f"( {FILL.format(run=run, disk=disk)} ) 2> /dev/null &"
    result = program.run("full", prefix=small_disk(disk, 250, filler), run_dir=run, model_output_dir=run / "model")
    line = failure(result)
    assert "the disk is full: free some space in" in line
    assert "the same command goes on from the last whole checkpoint" in line


def test_too_little_disk_is_refused(program):
    disk = program.folder / "little"
    run = disk / "runs" / "little"
    result = program.run("little", prefix=small_disk(disk, 40), run_dir=run, model_output_dir=run / "model")
    assert result.returncode == BAD_INPUT, result.stderr
    (line,) = result.stderr.splitlines()
    assert re.fullmatch(rf"error: {run}: 0\.0 GB free, this run needs about 0\.1 GB; free some, .*", line)
