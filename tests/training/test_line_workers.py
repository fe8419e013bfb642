"""Several processes find in a file what one finds, at the same lines and in the same order.

python -m pytest tests/training/test_line_workers.py
"""

import io
import json
import os
import random
import signal
from pathlib import Path

import pytest

import line_workers
import row_files
from dataset import Checker
from errors import RunFailed
from line_workers import LineWorkers
from row_files import JsonLinesFile, lines_of, parse_lines


def write(path: Path, rows: int, seed: int = 1) -> Path:
    """A file with good, bad, blank, repeated and undecodable lines, the last one without an end."""
    chance = random.Random(seed)
    with path.open("wb") as file:
        file.write(b"\xef\xbb\xbf")
        for _ in range(rows):
            question = f"Is {chance.randrange(rows * 5)} odd? " * chance.randint(1, 30)
            good = json.dumps({"question": question, "answer": "é"}, ensure_ascii=False).encode()
            bad = [
                b"",
                b"{",
                b"[1]",
                b'{"question": "\xff", "answer": "x"}',
                b'{"question": "x", "answer": ""}',
                b'{"text": 1}',
            ]
            file.write(chance.choice([good] * 30 + bad) + (b"\r\n" if chance.random() < 0.1 else b"\n"))
        file.write(good)
    return path


def check(path: Path, workers: LineWorkers | None):
    checker = Checker(max_tokens=150, workers=workers)
    return list(checker.conversations(JsonLinesFile(path))), checker.findings.lines(10_000), checker.rows_read


def test_workers_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(line_workers, "WORTHWHILE", 0)
    monkeypatch.setattr(line_workers, "PIECE", 5000)
    path = write(tmp_path / "chats.jsonl", 2000)
    alone = check(path, None)
    assert len(alone[0]) > 1000 and len(alone[1]) > 100
    with LineWorkers(2) as workers:
        assert check(path, workers) == alone
        assert check(path, workers) == alone, "they serve a second file as well"


def test_small_files_and_other_kinds_are_read_without_workers(tmp_path):
    workers = LineWorkers(4)
    assert not workers.can_read(JsonLinesFile(write(tmp_path / "chats.jsonl", 10)))
    (tmp_path / "large.jsonl").touch()
    os.truncate(tmp_path / "large.jsonl", line_workers.WORTHWHILE)
    assert workers.can_read(JsonLinesFile(tmp_path / "large.jsonl"))
    assert not workers.can_read(row_files.CsvFile(tmp_path / "large.jsonl"))
    assert not LineWorkers(1).can_read(JsonLinesFile(tmp_path / "large.jsonl"))


@pytest.mark.parametrize("size", [1, 17, 300, 4096, 1 << 20])
def test_pieces_hold_the_same_rows_as_the_file(tmp_path, monkeypatch, size):
    monkeypatch.setattr(row_files, "LONGEST", 400)  # some lines are longer
    file = JsonLinesFile(write(tmp_path / "chats.jsonl", 300))
    whole = [(number, str(row)) for number, row in file.rows()]
    assert any("longer than" in row for _, row in whole)
    pieces = [
        (number, str(row))
        for first, piece in file.chunks(size)
        for number, row in parse_lines(lines_of(io.BytesIO(piece)), first)
    ]
    assert pieces == whole


def test_a_killed_worker_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(line_workers, "WORTHWHILE", 0)
    monkeypatch.setattr(line_workers, "PIECE", 2000)
    path = write(tmp_path / "chats.jsonl", 2000)
    with LineWorkers(2) as workers:
        conversations = Checker(workers=workers).conversations(JsonLinesFile(path))
        next(conversations)
        for process in list(workers._executor._processes):
            os.kill(process, signal.SIGKILL)
        with pytest.raises(RunFailed, match=r"chats\.jsonl: .* --workers 1"):
            list(conversations)
