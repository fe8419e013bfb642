"""Files of other shapes with a few bad rows: refused by line, or trained on without them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHAPES = {
    "messages": lambda ask, say: {
        "messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": say}]
    },
    "sharegpt": lambda ask, say: {"conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": say}]},
    "alpaca": lambda ask, say: {"instruction": ask, "input": "", "output": say},
}


@pytest.fixture
def checkout(tmp_path) -> Path:
    for part in ("devtools", "training", "docker"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("shape", SHAPES)
def test_bad_rows_are_named_or_dropped(checkout, shape):
    rows = [json.dumps(SHAPES[shape](f"How much is {n} and {n}?", f"It is {2 * n}.")) for n in range(20)]
    rows[4] = json.dumps(SHAPES[shape]("A question without an answer", ""))
    rows[11] = rows[11][:-9]
    (checkout / "chats.jsonl").write_text("\n".join(rows) + "\n")

    def train(*options: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "devtools.cli", "train", "--backend", "venv", "--data", "chats.jsonl"]
        command += ["--name", shape, "--set", "num_train_epochs=1", "--set", "eval_max_new_tokens=4", *options]
        return subprocess.run(command, cwd=checkout, env=os.environ, capture_output=True, text=True, timeout=300)

    refused = train()
    assert refused.returncode == 2
    for line in (5, 12):
        assert f"chats.jsonl:{line}: " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (checkout / "runs" / shape).exists()

    trained = train("--on-bad", "drop")
    assert trained.returncode == 0, trained.stderr
    assert (checkout / "runs" / "latest").resolve().name == shape
    assert (checkout / "runs" / shape / "model" / "MLmodel").is_file()
