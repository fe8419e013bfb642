"""`prepare_data.py` as a program of its own, for tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

TRAIN, TEST, SUMMARY = "train_data.jsonl", "test_data.jsonl", "summary.json"
TRAINING = Path(__file__).parents[2] / "training"
PROGRAM = [sys.executable, str(TRAINING / "prepare_data.py")]


def run(*arguments, cwd=None, **environment):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def chat(number: int, answer: str = "Yes.") -> dict:
    return {"messages": [{"role": "user", "content": f"Is {number} odd?"}, {"role": "assistant", "content": answer}]}


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def errors(result) -> list[str]:
    """The findings of a refused input; it ended with 2 and without a traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return [line.removeprefix("error: ") for line in result.stderr.splitlines() if line.startswith("error: ")]
