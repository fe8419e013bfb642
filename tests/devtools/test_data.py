"""`--data`, and prepare_data.py run as a task in both backends."""

import json
from pathlib import Path

import pytest

from devtools import data
from devtools.errors import BadInput
from devtools.settings import ROOT, Settings

GOOD = '{"messages": [{"role": "user", "content": "question %d"}, {"role": "assistant", "content": "answer %d"}]}'
BAD = '{"messages": [{"role": "user", "content": "and nobody answers"}]}'


def rows(count: int, *more: str) -> str:
    return "\n".join([*(GOOD % (number, number) for number in range(count)), *more]) + "\n"


def prepared(folder: Path, **summary: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / data.TRAIN).write_text("{}\n")
    (folder / data.TEST).write_text("{}\n")
    if summary:
        (folder / data.SUMMARY).write_text(json.dumps(summary))
    return folder


def test_what_data_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "data"
    assert data.find(None, store, "fail") == data.Dataset(store, "sample")
    assert data.find("data", store, "fail") == data.Dataset(store, "sample")
    mine = prepared(tmp_path / "mine")
    assert data.find("mine", store, "fail") == data.Dataset(mine, None)
    (tmp_path / "My Chats.jsonl").write_text(rows(3))
    assert data.find("My Chats.jsonl", store, "fail") == data.Dataset(store / "my-chats", "My Chats.jsonl")
    assert data.find("owner/name", store, "fail") == data.Dataset(store / "owner-name", "owner/name")
    prepared(store)
    assert data.find(None, store, "fail") == data.Dataset(store, None)


def test_two_sources_of_one_name_go_into_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "data"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "chats.jsonl").write_text(rows(3))
    prepared(store / "chats", sources=["a/chats.jsonl"])
    assert data.find("a/chats.jsonl", store, "fail").folder == store / "chats"
    assert data.find("b/chats.jsonl", store, "fail").folder.name.startswith("chats-")


def test_half_a_folder_is_refused(tmp_path):
    (tmp_path / data.TRAIN).write_text("{}\n")
    with pytest.raises(BadInput, match=r"holds train_data\.jsonl but no test_data\.jsonl"):
        data.find(str(tmp_path), tmp_path / "data", "fail")


def test_a_download_is_not_repeated_unless_its_bad_rows_were_dropped(tmp_path):
    folder = prepared(tmp_path / "owner-name", sources=["owner/name[train]"], dropped_rows=[])
    assert data.find("owner/name", tmp_path, "fail") == data.Dataset(folder, None)
    prepared(folder, sources=["owner/name[train]"], dropped_rows=["row 3"])
    assert data.find("owner/name", tmp_path, "drop") == data.Dataset(folder, None)
    assert data.find("owner/name", tmp_path, "fail") == data.Dataset(folder, "owner/name")


@pytest.mark.parametrize(
    ("arguments", "reads", "writes", "network"),
    [
        (["rows.jsonl"], ["rows.jsonl"], ["data"], "none"),
        (["rows.jsonl", "--out", "there/in"], ["rows.jsonl"], ["there/in"], "none"),
        (["rows.jsonl", "--out=there", "--test-file=rows.jsonl"], ["rows.jsonl"], ["there"], "none"),
        (["--on-bad", "drop", "folder", "--out", "there"], ["folder"], ["there"], "none"),
        (["ultrachat"], [], ["data"], "on"),
        (["owner/name", "--split", "train[:5]"], [], ["data"], "on"),
        (["sample"], [], ["data"], "none"),
        (["rows.jsonl", "--tokenizer", "microsoft/Phi-3.5-mini-instruct"], ["rows.jsonl"], ["data"], "on"),
        (["rows.jsonl", "--tokenizer", "folder"], ["rows.jsonl", "folder"], ["data"], "none"),
    ],
)
def test_a_preparation_reaches_what_its_arguments_name(tmp_path, monkeypatch, arguments, reads, writes, network):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "rows.jsonl").write_text(rows(3))
    task = data.preparation(arguments, ROOT / "training", Settings(hf_home=str(tmp_path / "hub")), "prepare")
    assert list(task.reads) == [tmp_path / name for name in reads]
    assert [path for path in task.writes if path.name != "hub"] == [tmp_path / name for name in writes]
    assert task.network == network


def test_rows_are_prepared_checked_and_trained_on(checkout, backend):
    checkout.write("my chats.jsonl", rows(9, BAD))
    engine = {"DOCKER_HOST": "unix:///no/engine.sock"} if backend == "venv" else {}
    bad = checkout.phikit("data", "check", "my chats.jsonl", **engine)
    assert bad.returncode == 2
    assert "error: my chats.jsonl:10: " in bad.stderr
    refused = checkout.phikit("data", "prepare", "my chats.jsonl", "--out", "some/where", **engine)
    assert refused.returncode == 2
    assert not (checkout.root / "some").exists()
    dropped = checkout.phikit("data", "prepare", "my chats.jsonl", "--out", "some/where", "--on-bad", "drop", **engine)
    assert dropped.returncode == 0, dropped.stderr
    assert len((checkout.root / "some" / "where" / "train_data.jsonl").read_text().splitlines()) == 7
    failed = checkout.phikit("train", "--data", "my chats.jsonl", "--backend", backend)
    assert failed.returncode == 2
    assert "error: my chats.jsonl:10: " in failed.stderr
    assert not (checkout.root / "runs").exists()
    trained = checkout.phikit("train", "--data", "my chats.jsonl", "--on-bad", "drop", "--backend", backend)
    assert trained.returncode == 0, trained.stderr
    files = (checkout.root / "data" / "my-chats").iterdir()
    assert sorted(file.name for file in files) == ["summary.json", "test_data.jsonl", "train_data.jsonl"]


def test_the_sample_is_prepared_when_there_is_nothing_yet(checkout):
    for name in (data.TRAIN, data.TEST):
        (checkout.root / "data" / name).unlink()
    done = checkout.phikit("train", "--backend", "venv", "--name", "first")
    assert done.returncode == 0, done.stderr
    assert len((checkout.root / "data" / data.TRAIN).read_text().splitlines()) > 100
    again = checkout.phikit("train", "--backend", "venv", "--name", "second")
    assert "preparing" not in again.stderr


def test_help_comes_from_the_program_itself(checkout):
    done = checkout.phikit("data", "prepare", "--help", DOCKER_HOST="unix:///no/engine.sock")
    assert done.returncode == 0
    assert "--test-size" in done.stdout
