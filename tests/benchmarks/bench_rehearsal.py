"""What a person waits for before Azure: `phikit azure --help`, and a job's first log line in the rehearsal.

    python -m tests.benchmarks.bench_rehearsal [--rounds 3] [--runner docker|process]

The peer is a plain script on azure-ai-ml that submits the same folder, data and image as people's scripts do, in the
same emulator: both are timed from their start to the job's first line. The image is in the registry beforehand.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from devtools.rehearsal import session
from devtools.settings import ROOT
from tests.benchmarks.contest import Result, median, table
from tests.rehearsal import written

PHIKIT = (sys.executable, "-m", "devtools.cli")
HELP = str(Path(sys.executable).with_name("phikit"))
PLAIN = """
import os, sys, time
from azure.ai.ml import Input, MLClient, Output, command
from azure.identity import DefaultAzureCredential
where = (os.environ[f"AZURE_{name}"] for name in ("SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE"))
ml = MLClient(DefaultAzureCredential(), *where)
data = {part: Input(type="uri_file", path=f"data/{part}_data.jsonl") for part in ("train", "test")}
job = ml.jobs.create_or_update(command(
    code="training", compute="cpu-e16s-v3", environment=sys.argv[1],
    command="echo it begins && sleep 5 && cat ${{inputs.train}} ${{inputs.test}} > ${{outputs.out}}/all.jsonl",
    inputs=data, outputs={"out": Output(type="uri_folder")}))
ml.jobs.stream(job.name)
"""


def first_line(environment: dict[str, str], *command: str, is_log: str) -> float:
    """Seconds from a command's start to the first line of the job's log; the command is ended then."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if is_log in line:
                return time.perf_counter() - began
    finally:
        process.terminate()
        _, said = process.communicate()
    raise SystemExit(f"{' '.join(command)}: no log line came\n{said[-2000:]}")


def phikit(environment: dict[str, str], *arguments: str, may_fail: bool = False) -> str:
    """What a command of the kit prints."""
    done = subprocess.run(
        [*PHIKIT, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=not may_fail
    )
    return done.stdout


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What a person waits for before Azure.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runner", choices=["docker", "process"], default="docker")
    arguments = parser.parse_args()
    helps, kit, plain, uploads = [], [], [], []
    for _ in range(arguments.rounds * 5):
        began = time.perf_counter()
        subprocess.run([HELP, "azure", "--help"], check=True, capture_output=True)
        helps.append(time.perf_counter() - began)
    with tempfile.TemporaryDirectory(prefix="phikit-bench-") as folder:
        home = Path(folder)
        os.environ["PHIKIT_REHEARSAL_RUNNER"] = arguments.runner
        session.ensure_up(home)
        try:
            environment = os.environ | session.environment(home)
            if arguments.runner == "process":
                environment["PHIKIT_AZURE_IMAGE"] = "build"
            said = subprocess.run(
                [*PHIKIT, "azure", "image"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
            )
            image = said.stdout.splitlines()[0]
            names = [f"bench-{time.time_ns()}-{number}" for number in range(arguments.rounds + 1)]
            for number, name in enumerate(names):
                before = len(written.blobs(home))
                train = (*PHIKIT, "azure", "train", "--yes", "--name", name, "--set", f"seed={number}")
                seconds = first_line(environment, *train, is_log="model tiny")
                again = len(written.blobs(home)) - before
                phikit(environment, "azure", "cancel", name, "--yes")
                phikit(environment, "azure", "logs", name, "--follow", may_fail=True)
                phikit(environment, "runs", "rm", name)
                theirs = first_line(
                    environment, sys.executable, "-c", PLAIN, image.removeprefix("azureml:"), is_log="it begins"
                )
                print(f"  {number}: kit {seconds:.1f} s with {again} uploads, plain script {theirs:.1f} s", flush=True)
                if number:
                    # (the first one uploads code and data, makes the cluster, loads what the system caches)
                    kit.append(seconds)
                    uploads.append(again)
                    plain.append(theirs)
        finally:
            session.end(home)
    table(
        f"Azure, rehearsed ({arguments.runner})",
        [
            Result("phikit azure --help, seconds", median(helps), 0.3, at_most=True),
            Result("phikit azure train, start to the job's first log line, seconds", median(kit), 15, at_most=True),
            Result("blobs that a second submit uploads", median(uploads), 0, at_most=True),
            Result("kit / a plain script on azure-ai-ml, start to first line", median(kit) / median(plain)),
        ],
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
