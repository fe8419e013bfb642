"""Rows a second of `prepare_data.py prepare` against `datasets`, and its peak memory at 200,000 conversations.

    python -m tests.benchmarks.bench_data [--rows 100000] [--runs 3]

Both take the same ShareGPT-shaped JSONL file to a train and a test JSONL file of messages, each run in a process of its
own with an empty cache, in turns. `datasets` does it as documented: load_dataset("json"), map with its defaults,
train_test_split, to_json. It checks nothing; prepare_data.py does all of its checks. On a busy machine the seconds say
little: then compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PREPARE = Path(__file__).parents[2] / "training" / "prepare_data.py"
WORDS = (
    "river",
    "system",
    "light",
    "the",
    "of",
    "question",
    "because",
    "large",
    "user",
    "a",
    "answers",
    "model",
    "which",
)
LARGE = 200_000

#: The same work with `datasets`; prints wall and CPU seconds of load and map, then of all of it, imports not counted.
DATASETS = """
import sys, time
import datasets
datasets.disable_progress_bars()
source, folder = sys.argv[1:]
roles = {"human": "user", "gpt": "assistant"}

def convert(row):
    return {"messages": [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]}

began, used = time.perf_counter(), time.process_time()
rows = datasets.load_dataset("json", data_files=source, split="train", cache_dir=folder + "/cache")
rows = rows.map(convert, remove_columns=rows.column_names)
print(time.perf_counter() - began, time.process_time() - used)
parts = rows.train_test_split(0.2, seed=0)
for name in ("train", "test"):
    parts[name].to_json(f"{folder}/{name}_data.jsonl", force_ascii=False)
print(time.perf_counter() - began, time.process_time() - used)
"""

#: Our program as it is.
OURS = """
import contextlib, io, sys, time
sys.path.insert(0, sys.argv[1])
import prepare_data
began, used = time.perf_counter(), time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    prepare_data.main(["prepare", sys.argv[2], "--out", sys.argv[3]])
print(time.perf_counter() - began, time.process_time() - used)
"""


def write_chats(path: Path, rows: int) -> None:
    """A file of `rows` different ShareGPT conversations, about 1.3 KB each, one to three questions long."""
    chance = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            turns = []
            for _ in range(chance.choice((1, 2, 2, 3))):
                question = f"{number} {' '.join(chance.choices(WORDS, k=chance.randint(10, 40)))}?"
                answer = " ".join(chance.choices(WORDS, k=chance.randint(20, 120))) + ".\n"
                turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            file.write(json.dumps({"id": f"row_{number}", "conversations": turns}) + "\n")


def times(program: str, *arguments: object) -> list[tuple[float, float]]:
    """Run a program text in a process of its own; the pairs of wall and CPU seconds that it prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [tuple(map(float, line.split())) for line in result.stdout.splitlines()]


def count_lines(folder: Path) -> int:
    """Lines of both parts, to see that both programs did the same work."""
    return sum(part.read_bytes().count(b"\n") for part in folder.glob("t*_data.jsonl"))


def compare(folder: Path, rows: int, runs: int) -> None:
    """Print the table of rows a second, the programs taking turns."""
    source = folder / "chats.jsonl"
    write_chats(source, rows)
    ours, mapped, written = "prepare_data.py prepare", "datasets: load, map", "datasets: load, map, save"
    taken: dict[str, list[tuple[float, float]]] = {ours: [], mapped: [], written: []}
    for run in range(runs):
        for program, names in ((OURS, (ours,)), (DATASETS, (mapped, written))):
            out = folder / f"{run}-{len(names)}"
            out.mkdir()
            arguments = (PREPARE.parent, source, out) if program is OURS else (source, out)
            for name, pair in zip(names, times(program, *arguments), strict=True):
                taken[name].append(pair)
            assert count_lines(out) == rows, (names, count_lines(out))
    print(
        f"{rows:,} conversations, {source.stat().st_size / 1e6:,.0f} MB, medians of {runs} runs, {os.cpu_count()} cores"
    )
    print(f"{'':26}{'seconds':>9}{'rows/s':>10}{'ratio':>8}{'CPU s':>9}{'ratio':>8}")
    medians = {
        name: [statistics.median(values) for values in zip(*pairs, strict=True)] for name, pairs in taken.items()
    }
    for name, (wall, cpu) in medians.items():
        ratios = wall / medians[ours][0], cpu / medians[ours][1]
        print(f"{name:26}{wall:>9.2f}{rows / wall:>10,.0f}{ratios[0]:>7.2f}x{cpu:>9.2f}{ratios[1]:>7.2f}x")


def measure_memory(folder: Path) -> None:
    """Print the peak memory of preparing LARGE conversations."""
    source = folder / "large.jsonl"
    write_chats(source, LARGE)
    began = time.perf_counter()
    # a process of its own counts: a child's peak starts at what its parent holds, and this one has held whole files
    counted = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    counted += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    command = [sys.executable, "-c", counted, sys.executable, str(PREPARE), "prepare", str(source), "--out"]
    result = subprocess.run([*command, str(folder / "large")], check=True, stdout=subprocess.PIPE, text=True)
    taken = time.perf_counter() - began
    print(
        f"{LARGE:,} conversations, {source.stat().st_size / 1e6:,.0f} MB: {taken:.1f} s, {LARGE / taken:,.0f} rows/s, "
        f"peak memory {int(result.stdout) / 1024:,.0f} MiB (limit 600)"
    )


def main() -> None:
    """Run both measurements in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000, help="conversations to compare with (default: 100000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each program (default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options.rows, options.runs)
        measure_memory(Path(folder))


if __name__ == "__main__":
    main()
