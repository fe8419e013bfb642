"""Rows keep their place in every kind of file, and a damaged file is told from a bad row.

python -m pytest tests/training/test_row_files.py
"""

import gzip
import json
import random
from pathlib import Path

import pytest

import json_file
import row_files
from dataset import Checker
from errors import BadInput
from findings import BadRow
from sources import open_file, open_folder

QA = {"question": "Why?", "answer": "Because."}


def rows(path: Path):
    return list(open_file(path).rows())


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def findings(path: Path) -> list[str]:
    checker = Checker()
    list(checker.conversations(open_file(path)))
    return checker.findings.lines()


def test_csv_lines_are_physical_lines(tmp_path):
    path = put(
        tmp_path / "faq.csv",
        'question,answer\r\n"Why,\nand how?","Because\n""so""."\r\n\r\nWho?,\n"When?",Now.\nWhere?,Here,There\n',
    )
    assert [(number, row if isinstance(row, dict) else row.kind) for number, row in rows(path)] == [
        (2, {"question": "Why,\nand how?", "answer": 'Because\n"so".'}),
        (6, {"question": "Who?", "answer": ""}),
        (7, {"question": "When?", "answer": "Now."}),
        (8, "not CSV"),
    ]
    assert [line.partition(";")[0] for line in findings(path)] == [
        f"{path}:6: turn 2 (assistant) is empty",
        f"{path}:8: 3 cells, but the header has 2",
    ]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t"), ("a.csv", ",")])
def test_csv_separators_and_byte_order_mark(tmp_path, name, mark):
    path = put(tmp_path / name, b"\xef\xbb\xbf" + f"question{mark}answer\nWhy?{mark}Because.\n".encode())
    assert rows(path) == [(2, QA)]


def test_csv_that_is_no_utf8_or_not_closed(tmp_path):
    path = put(tmp_path / "latin.csv", b"question,answer\nA?,B\nCaf\xe9?,x\nC?,D\n")
    assert findings(path) == [f"{path}:3: not UTF-8 (byte 0xe9); save the file as UTF-8"]
    path = put(tmp_path / "open.csv", 'question,answer\nA?,B\n"Why?,Because.\nC?,D\n')
    (line,) = findings(path)
    assert line.startswith(f"{path}:3: not CSV (unexpected end of data); close the quotes")


@pytest.mark.parametrize(
    ("header", "words"), [(b"question,answer,answer\n", "'answer' comes twice"), (b"qu\xe9,answer\n", "not UTF-8")]
)
def test_csv_header(tmp_path, header, words):
    path = put(tmp_path / "faq.csv", header + b"a,b,c\n")
    (line,) = findings(path)
    assert line.startswith(f"{path}:1: header: ") and words in line


def test_json_lines_skip_blank_lines_and_the_byte_order_mark(tmp_path):
    line = json.dumps(QA)
    path = put(tmp_path / "a.jsonl", f"\ufeff{line}\n\n  {line}  \r\n{line}")
    assert rows(path) == [(1, QA), (3, QA), (4, QA)]


@pytest.mark.parametrize(
    "line", ['{"a":}', '{"a"', '{"a": tru', "{", "x", '{"a": 1} 2', '{"a": "', "{'a': 1}", '{"a": 1,}']
)
def test_json_line_that_is_none(tmp_path, line):
    path = put(tmp_path / "a.jsonl", f"{json.dumps(QA)}\n{line}\n")
    (_, (number, problem)) = rows(path)
    assert number == 2
    assert isinstance(problem, BadRow) and problem.kind == "not JSON"


def test_a_line_without_end_costs_one_finding_and_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "LONGEST", 100)
    path = put(tmp_path / "a.jsonl", f"{json.dumps(QA)}\n{'x' * 950}\n{json.dumps(QA)}\n{'y' * 99}\n{'z' * 100}\n")
    assert [(number, getattr(row, "kind", row)) for number, row in rows(path)] == [
        (1, QA),
        (2, "too long"),
        (3, QA),
        (4, "not JSON"),
        (5, "too long"),
    ]


def test_json_documents(tmp_path, monkeypatch):
    chance = random.Random(1)
    wanted = [
        {"question": "é\n" * chance.randint(1, 40), "answer": "12.5e3 ]} \\" + str(n), "n": 12345, "b": [True]}
        for n in range(60)
    ]
    for chunk in (1, 7, 64, 1 << 18):
        monkeypatch.setattr(json_file, "CHUNK", chunk)
        for indent in (None, 2):
            for ascii_only in (True, False):
                text = json.dumps(wanted, indent=indent, ensure_ascii=ascii_only)
                array = rows(put(tmp_path / "array.json", text))
                assert [row for _, row in array] == wanted
                starts = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith("  {")]
                assert [number for number, _ in array] == (starts if indent else [1] * 60)
                around = {"version": 1.5, "tags": ["a", "b"], "data": wanted, "end": None}
                inside = rows(put(tmp_path / "object.json", json.dumps(around, indent=indent, ensure_ascii=ascii_only)))
                assert [row for _, row in inside] == wanted


def test_json_document_of_one_row_and_json_lines_named_json(tmp_path):
    row = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
    for indent in (None, 2):
        assert rows(put(tmp_path / "one.json", json.dumps(row, indent=indent) + "\n")) == [(1, row)]
    assert rows(put(tmp_path / "lines.json", f"{json.dumps(row)}\n{json.dumps(row)}\n")) == [(1, row), (2, row)]
    assert rows(put(tmp_path / "array.jsonl", json.dumps([row, row], indent=1)))[0] == (2, row)
    assert findings(put(tmp_path / "none.json", "[]")) == [
        f"{tmp_path / 'none.json'}: holds no rows; give a file with at least one conversation"
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[{"question": "A", "answer": "B"},\n{"question": "C" "answer": "D"}]', 2, "not JSON from here on"),
        ('[{"question": "A", "answer": "B"}\n {"question": "C", "answer": "D"}]', 2, "',' is missing"),
        ('[{"question": "A", "answer": "B"}]\n[]', 2, "more text after"),
        ('{"data": [{"question": "A", "answer": "B"}],\n\n 1: 2}', 3, "not JSON from here on"),
        ('[{"question": "A", "answer": "B"},\n' + "[" * 100_000, 2, "nested too deeply"),
    ],
)
def test_json_document_broken_in_the_middle_cannot_be_dropped(tmp_path, text, line, words):
    path = put(tmp_path / "a.json", text)
    checker = Checker()
    assert len(list(checker.conversations(open_file(path)))) == 1
    (finding,) = checker.findings.files
    assert finding.startswith(f"{path}:{line}: ") and words in finding


def test_json_document_cut_off_at_any_place(tmp_path):
    whole = json.dumps([QA, {"question": "How?", "answer": "So."}], indent=1)
    for length in range(1, len(whole)):
        path = put(tmp_path / "a.json", whole[:length])
        assert findings(path), whole[:length]


def test_json_document_that_is_no_utf8(tmp_path):
    path = put(tmp_path / "a.json", b'[\n{"question": "A", "answer": "B"},\n{"question": "\xff", "answer": "B"}]')
    assert findings(path) == [f"{path}:3: not UTF-8 (byte 0xff); save the file as UTF-8"]


def test_parquet_rows_have_numbers(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "faq.parquet"
    table = pa.table(
        {"question": [f"Q{n}?" for n in range(1200)], "answer": [None if n == 1100 else "A" for n in range(1200)]}
    )
    pq.write_table(table, path, row_group_size=500)
    assert [number for number, _ in rows(path)] == list(range(1, 1201))
    assert findings(path) == [f"{path}:row 1101: turn 2 (assistant) has no content; fill it in"]
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"PAR1" + whole[200:], b"PAR1"):
        (line,) = findings(put(tmp_path / "damaged.parquet", damaged))
        assert line.startswith(f"{tmp_path / 'damaged.parquet'}: damaged Parquet file")
    copy = put(tmp_path / "named_otherwise.dat", whole)
    assert len(rows(copy)) == 1200


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.json", b" \n\n ", "is empty"),
        ("a.jsonl", b"\x00\x01\x02\x03" * 100, "binary"),
        ("a.csv", gzip.compress(b"x" * 1000), "compressed"),
        ("a.jsonl", json.dumps(QA).encode("utf-16"), "UTF-16"),
        ("a.parquet", b"question,answer\n", "no Parquet file"),
        ("a.txt", b"Why? Because.", "neither JSON nor Parquet"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, words):
    path = put(tmp_path / name, content)
    with pytest.raises(BadInput, match=words) as caught:
        open_file(path)
    (line,) = caught.value.findings
    assert line.startswith(f"{path}: ") and "; " in line


def test_a_folder_keeps_its_own_split(tmp_path):
    line = json.dumps(QA) + "\n"
    for name in (
        "train-00.jsonl",
        "train-01.jsonl",
        "validation.jsonl",
        "notes.csv",
        "summary.json",
        ".cache/test.jsonl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        put(tmp_path / name, line)
    sources, unused = open_folder(tmp_path)
    assert [(Path(source.name).name, source.split) for source in sources] == [
        ("train-00.jsonl", "train"),
        ("train-01.jsonl", "train"),
        ("validation.jsonl", "test"),
    ]
    assert [path.name for path in unused] == ["notes.csv"]
    put(tmp_path / "held_out.jsonl", line)
    sources, unused = open_folder(tmp_path)
    assert [Path(source.name).name for source in sources if source.split == "test"] == ["held_out.jsonl"]
    assert [path.name for path in unused] == ["notes.csv", "validation.jsonl"]


def test_a_folder_without_a_split_is_taken_whole(tmp_path):
    for name in ("b.jsonl", "a.json", "more/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        put(tmp_path / name, json.dumps(QA) + "\n")
    sources, unused = open_folder(tmp_path)
    assert [(Path(source.name).name, source.split) for source in sources] == [
        ("a.json", ""),
        ("b.jsonl", ""),
        ("c.jsonl", ""),
    ]
    assert unused == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no data"):
        open_folder(tmp_path / "empty")
