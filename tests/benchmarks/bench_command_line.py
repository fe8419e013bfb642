"""What a person waits for: `phikit --help`, and a whole `phikit train` on the sample, from data to report.

    python tests/benchmarks/bench_command_line.py [--rounds 3] [--backend venv|docker]

The help is compared with starting Python and doing nothing, the training with what its own steps add up to.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from contest import Result, median, table  # noqa: E402

PHIKIT = str(Path(sys.executable).with_name("phikit"))


def seconds(*command: str) -> float:
    """Wall-clock seconds of a command that must succeed."""
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> int:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description="What a person waits for.")
    parser.add_argument("--rounds", type=int, default=3, help="trainings; of the help five times as many")
    parser.add_argument("--backend", choices=["venv", "docker"], default="venv")
    arguments = parser.parse_args()
    helps, nothings, trainings, inside = [], [], [], []
    for _ in range(arguments.rounds * 5):
        helps.append(seconds(PHIKIT, "--help"))
        nothings.append(seconds(sys.executable, "-c", "pass"))
    for number in range(arguments.rounds):
        name = f"bench-{time.time_ns()}"
        command = (PHIKIT, "train", "--data", "sample", "--name", name, "--backend", arguments.backend)
        trainings.append(seconds(*command))
        run = ROOT / "runs" / name
        inside.append(json.loads((run / "metrics.json").read_text())["train"]["seconds"])
        seconds(PHIKIT, "runs", "rm", name)
        print(
            f"  training {number + 1}: {trainings[-1]:.1f} s, of which {inside[-1]:.1f} s are training steps",
            flush=True,
        )
    table(
        f"The command line ({arguments.backend})",
        [
            Result("phikit --help, seconds", median(helps), 0.25, at_most=True),
            Result("phikit --help / python -c pass", median(helps) / median(nothings)),
            Result("phikit train on the sample, data to report, seconds", median(trainings), 60, at_most=True),
            Result("phikit train / its training steps", median(trainings) / median(inside)),
        ],
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
