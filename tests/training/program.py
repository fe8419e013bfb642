"""The program `fine_tune.py`, run as a user runs it, on a few conversations of the sample."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

TRAINING = Path(__file__).parents[2] / "training"
SAMPLE = TRAINING / "sample"
#: Seconds after which a test gives up on a program; a loaded machine must not fail it.
DEADLINE = 240
#: tiny_cpu, made small: 16 steps of two rows, a line of the log for every two.
SHORT = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 2,
    "num_eval_questions": 6,
    "eval_max_new_tokens": 16,
    "logging_steps": 2,
    "save_steps": 3,
}


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sample_rows(name: str, count: int) -> list[dict]:
    """Conversations from all over a file of the sample: simple ones and ones of several turns."""
    rows = [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]
    return [rows[index * len(rows) // count] for index in range(count)]


class Program:
    """`fine_tune.py` with its files below one folder; a run's folder is `folder/runs/NAME`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.train = write_rows(folder / "train.jsonl", sample_rows("train.jsonl", 60))
        self.held_out = write_rows(folder / "held_out.jsonl", sample_rows("held_out.jsonl", 8))
        self.runs = folder / "runs"

    def arguments(self, name: str, overrides: dict | str | None = None, **changed: object) -> list[str]:
        """The command line of a run; `changed` replaces options, `_` for `-`."""
        options = {
            "recipe": "tiny_cpu",
            "train-file": self.train,
            "eval-file": self.held_out,
            "run-dir": self.runs / name,
            "model_output_dir": self.runs / name / "model",
            "overrides": overrides if isinstance(overrides, str) else json.dumps(SHORT | (overrides or {})),
        }
        options |= {key if key == "model_output_dir" else key.replace("_", "-"): new for key, new in changed.items()}
        return [text for key, value in options.items() for text in (f"--{key}", str(value))]

    def start(self, name: str, overrides: dict | None = None, prefix: Sequence[str] = (), **rest) -> subprocess.Popen:
        """Start a run; its output goes to NAME.out and NAME.err. `environment` adds variables."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= rest.pop("environment", {})
        with (self.folder / f"{name}.out").open("w") as out, (self.folder / f"{name}.err").open("w") as err:
            return subprocess.Popen(
                [*prefix, sys.executable, "fine_tune.py", *self.arguments(name, overrides, **rest)],
                cwd=TRAINING,
                env=environment,
                stdout=out,
                stderr=err,
            )

    def run(self, name: str, overrides: dict | None = None, **rest) -> subprocess.CompletedProcess:
        """A run to its end."""
        process = self.start(name, overrides, **rest)
        try:
            process.wait(DEADLINE)
        finally:
            process.kill()
        return self.outcome(name, process)

    def outcome(self, name: str, process: subprocess.Popen) -> subprocess.CompletedProcess:
        """What an ended run said."""
        out, err = ((self.folder / f"{name}.{end}").read_text() for end in ("out", "err"))
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @contextmanager
    def running(self, name: str, until: Callable[[], bool], **rest) -> Iterator[subprocess.Popen]:
        """A run that has come as far as `until` says; it is killed at the end of the block."""
        process = self.start(name, **rest)
        try:
            wait_for(until, process)
            yield process
        finally:
            process.kill()
            process.wait()

    def metrics(self, name: str) -> dict:
        return json.loads((self.runs / name / "metrics.json").read_text())

    def remove(self, name: str) -> None:
        shutil.rmtree(self.runs / name)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    """Look until `condition` holds; fail when the process ends before, or after the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert process is None or process.poll() is None, "the program ended before it came that far"
        assert time.monotonic() < end, f"not within {DEADLINE} s"
        time.sleep(0.01)


def small_disk(folder: Path, mebibytes: int, then: str = "") -> tuple[str, ...]:
    """The start of a command line that goes on with a disk of its own mounted at `folder`, which it alone sees.

    `then` is shell code that runs on it first. Skips the test where the system allows no such disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alone = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    mount = f'mount -t tmpfs -o size={mebibytes}m none "{folder}"'
    if shutil.which("unshare") is None or subprocess.run([*alone, "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("NOT TESTED: no small disk can be mounted here (unshare --mount)")
    return (*alone, "sh", "-c", f'{mount} && {{ {then or ":"}\n}} && exec "$@"', "sh")
