"""The program itself, as a user runs it: what it writes and what it refuses.

python -m pytest tests/training/test_prepare_data.py
"""

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from split import choose_test
from tests.training.preparation import PROGRAM, SUMMARY, TEST, TRAIN, TRAINING, chat, errors, read, run, write


def test_split_is_exact_seeded_and_whole(tmp_path):
    source = write(tmp_path / "chats.jsonl", map(chat, range(101)))
    first = run("prepare", source, "--out", tmp_path / "a")
    assert first.returncode == 0, first.stderr
    train, test = read(tmp_path / "a" / TRAIN), read(tmp_path / "a" / TEST)
    assert (len(train), len(test)) == (81, 20)
    assert sorted(map(str, train + test)) == sorted(str(chat(number)) for number in range(101))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [SUMMARY, TEST, TRAIN]

    run("prepare", source, "--out", tmp_path / "b", PYTHONHASHSEED="7")
    run("prepare", source, "--out", tmp_path / "c", "--seed", 1)
    run("prepare", source, "--out", tmp_path / "d", "--test-size", 0.5)
    parts = {name: [(tmp_path / name / part).read_bytes() for part in (TRAIN, TEST)] for name in "abcd"}
    assert parts["a"] == parts["b"]
    assert parts["a"] != parts["c"]
    assert len(read(tmp_path / "d" / TEST)) == 50

    summary = json.loads((tmp_path / "a" / SUMMARY).read_text())
    for name, content in zip((TRAIN, TEST), parts["a"], strict=True):
        assert summary["files"][name]["sha256"] == hashlib.sha256(content).hexdigest()
    assert summary["files"][TRAIN]["conversations"] == 81
    assert summary["rows"] == {"read": 101, "kept": 101, "dropped": 0, "dropped_by_reason": {}}
    assert summary["layouts"] == {"messages": 101}
    assert summary["split"] == {"test_size": 0.2, "seed": 0}
    assert sum(bar["conversations"] for bar in summary["tokens"]["histogram"]) == 101
    assert "101 good, 0 bad" in first.stdout and "█" in first.stdout


def test_choice_stays_the_same_between_versions():
    assert [index for index, flag in enumerate(choose_test(20, 0.2, 0)) if flag] == [1, 8, 12, 13]
    for count in range(2, 60):
        for size in (0.001, 0.2, 0.5, 0.999):
            assert sum(choose_test(count, size, 3)) == min(max(round(count * size), 1), count - 1)


def test_sample_keeps_its_own_split(tmp_path):
    result = run("prepare", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    for part, name in ((TRAIN, "train.jsonl"), (TEST, "held_out.jsonl")):
        assert read(tmp_path / "out" / part) == read(TRAINING / "sample" / name)
    assert json.loads((tmp_path / "out" / SUMMARY).read_text())["split"] == "of the source"
    assert run("check", tmp_path / "out").returncode == 0
    assert run("check", "sample").returncode == 0


LAYOUTS = {
    "alpaca.json": lambda q, a: {"instruction": q, "input": "", "output": a},
    "sharegpt.jsonl": lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]},
    "messages.jsonl": lambda q, a: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
    "prompts.jsonl": lambda q, a: {"prompt": q, "completion": a},
    "faq.csv": lambda q, a: {"Question": q, "Answer": a},
    "faq.parquet": lambda q, a: {"question": q, "answer": a},
}


def save(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write(path, rows)
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_with_bad_rows(tmp_path, name):
    pairs = [(f"Is {number} odd?", "Yes." if number % 2 else "No.") for number in range(20)]
    pairs[3] = ("Is 3 odd?", "")
    pairs[12] = pairs[2]
    source = save(tmp_path / name, [LAYOUTS[name](*pair) for pair in pairs])
    out = tmp_path / "out"

    findings = errors(run("prepare", source, "--out", out))
    place = {".json": (":17:", ":62:"), ".csv": (":5:", ":14:"), ".parquet": (":row 4:", ":row 13:")}.get(
        source.suffix, (":4:", ":13:")
    )
    assert len(findings) == 2
    assert findings[0].startswith(f"{source}{place[0]} turn 2 (assistant) is empty; ")
    assert findings[1].startswith(f"{source}{place[1]} the same conversation as ")
    assert not out.exists()
    assert [line.partition("; ")[0] for line in errors(run("check", source))] == [
        line.partition("; ")[0] for line in findings
    ]

    result = run("prepare", source, "--out", out, "--on-bad", "drop")
    assert result.returncode == 0, result.stderr
    assert [line.removeprefix("dropped: ") for line in result.stderr.splitlines()] == findings
    kept = read(out / TRAIN) + read(out / TEST)
    wanted = [LAYOUTS["messages.jsonl"](*pair) for number, pair in enumerate(pairs) if number not in (3, 12)]
    assert sorted(map(str, kept)) == sorted(map(str, wanted))
    summary = json.loads((out / SUMMARY).read_text())
    assert summary["rows"]["dropped_by_reason"] == {"empty content": 1, "duplicate": 1}
    assert summary["dropped_rows"] == findings


def test_named_columns_and_a_test_file(tmp_path):
    (tmp_path / "a.csv").write_text("Id,Asked,Told\n1,Why?,Because.\n2,Who?,Me.\n")
    (tmp_path / "b.csv").write_text("Asked,Told\nWhen?,Now.\nWhy?,Because.\n")
    arguments = (
        "prepare", tmp_path / "a.csv", "--test-file", tmp_path / "b.csv", "--out", tmp_path / "out",
        "--columns", "question=Asked,answer=Told",
    )  # fmt: skip
    (finding,) = errors(run(*arguments))
    assert finding.startswith(
        f"{tmp_path / 'b.csv'}:3: the same conversation as {tmp_path / 'a.csv'}:2, so train and test"
    )
    assert run(*arguments, "--on-bad", "drop").returncode == 0
    assert [row["messages"][0]["content"] for row in read(tmp_path / "out" / TRAIN)] == ["Why?", "Who?"]
    assert [row["messages"][0]["content"] for row in read(tmp_path / "out" / TEST)] == ["When?"]


def test_no_conversation_is_in_both_parts(tmp_path):
    chance = random.Random(2)
    rows = [chat(number, chance.choice(["Yes.", "Yes.\n", " Yes.  "])) for number in chance.choices(range(300), k=1000)]
    source = write(tmp_path / "chats.jsonl", rows)
    assert run("prepare", source, "--out", tmp_path / "out", "--on-bad", "drop").returncode == 0
    train, test = ({row["messages"][0]["content"] for row in read(tmp_path / "out" / part)} for part in (TRAIN, TEST))
    assert not train & test
    assert train | test == {row["messages"][0]["content"] for row in rows}
    (tmp_path / "out" / TEST).write_bytes((tmp_path / "out" / TRAIN).read_bytes())
    findings = errors(run("check", tmp_path / "out"))
    assert "so train and test overlap" in findings[0]
    assert findings[-1].endswith(f"(in all: {len(train):,} in train and test)")


def test_all_options_are_checked_before_anything_is_read(tmp_path):
    result = run("prepare", tmp_path / "absent.jsonl", "--test-size", 1.5, "--max-tokens", -1, "--columns", "q=a")
    assert [line.partition(":")[0] for line in errors(result)] == ["--columns", "--max-tokens", "--test-size"]


def test_files_that_cannot_be_read_are_all_named_and_never_dropped(tmp_path):
    good = write(tmp_path / "good.jsonl", map(chat, range(9)))
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)))
    names = [tmp_path / name for name in ("absent.jsonl", "empty.jsonl", "binary.jsonl")]
    findings = errors(run("prepare", good, *names, "--out", tmp_path / "out", "--on-bad", "drop"))
    assert [line.partition(": ")[0] for line in findings] == [str(name) for name in names]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows", [[], [chat(1)]])
def test_too_little_is_left(tmp_path, rows):
    source = write(tmp_path / "chats.jsonl", [*rows, {"text": "x"}])
    (finding,) = errors(run("prepare", source, "--out", tmp_path / "out", "--on-bad", "drop"))
    assert "too few" in finding
    assert not (tmp_path / "out").exists()


def test_output_folder_that_cannot_be(tmp_path):
    source = write(tmp_path / "chats.jsonl", map(chat, range(9)))
    for out in (source, source / "below", Path("/proc/phikit")):
        (finding,) = errors(run("prepare", source, "--out", out))
        assert finding.startswith(f"--out {out}: ")
    assert len(read(source)) == 9


def test_memory_stays_the_same_for_200_000_conversations(tmp_path):
    def peak(count: int) -> int:
        """KiB that a preparation of `count` conversations needs at most."""
        line = json.dumps(chat(0, "Yes, it is, and so are its neighbours' neighbours. " * 4)) + "\n"
        source = tmp_path / "chats.jsonl"
        with source.open("w") as file:
            file.writelines(line.replace("Is 0", f"Is {number}") for number in range(count))
        measured = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        )
        measured += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        program = [sys.executable, "-c", measured, *PROGRAM, "prepare", str(source), "--out", str(tmp_path / "out")]
        return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)

    few, many = peak(20_000), peak(200_000)
    assert many < 600 * 1024
    # what remains are the digests that tell duplicates
    assert many - few < 60 * 1024


def test_hub_that_cannot_be_reached(tmp_path):
    began = time.monotonic()
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    (finding,) = errors(run("prepare", "ultrachat", "--out", tmp_path / "out", **environment))
    assert finding.startswith("HuggingFaceH4/ultrachat_200k: ") and "the hub cannot be reached" in finding
    assert time.monotonic() - began < 30
    assert not (tmp_path / "out").exists()


def test_options_of_the_hub_are_refused_for_files(tmp_path):
    source = write(tmp_path / "chats.jsonl", map(chat, range(9)))
    (finding,) = errors(run("prepare", source, "--split", "train", "--out", tmp_path / "out"))
    assert "--split" in finding
    (finding,) = errors(run("prepare", "squad", "--out", tmp_path / "out"))
    assert "owner/name" in finding


def test_help_is_instant_and_shows_examples():
    listing = (
        "import sys; sys.path.insert(0, sys.argv[1]); import prepare_data\n"
        "try: prepare_data.main(['prepare', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'datasets', 'pyarrow', 'transformers', 'torch', 'rich', 'huggingface_hub'}\n"
        "print('imported:', heavy & sys.modules.keys() or 'none of the heavy ones')"
    )
    result = subprocess.run([sys.executable, "-c", listing, str(TRAINING)], capture_output=True, text=True, check=True)
    assert "examples:" in result.stdout and "--on-bad" in result.stdout
    assert "imported: none of the heavy ones" in result.stdout
