"""Hub datasets, against a small hub on loopback that answers what `datasets` asks of the real one.

python -m pytest tests/training/test_hub.py
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("datasets")
PROGRAM = [sys.executable, str(Path(__file__).parents[2] / "training" / "prepare_data.py")]
COMMIT = "5" * 40
CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train_sft\n    path: data/train_sft-*\n---\n"


def chat(number):
    return {"messages": [{"role": "user", "content": f"Is {number} odd?"}, {"role": "assistant", "content": "Yes."}]}


FILES = {
    "README.md": CARD.encode(),
    "data/train_sft-0.jsonl": "".join(
        json.dumps({"prompt": "", **chat(number)}) + "\n" for number in range(300)
    ).encode(),
}


class Hub(BaseHTTPRequestHandler):
    """One public dataset, maker/chats; maker/gated wants a licence accepted; there is nothing else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/api/datasets/maker/gated":
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if path in ("/api/datasets/maker/chats", f"/api/datasets/maker/chats/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in FILES]
            return self.answer(200, json.dumps({"id": "maker/chats", "sha": COMMIT, "siblings": siblings}).encode())
        tree, file = f"/api/datasets/maker/chats/tree/{COMMIT}", path.split("/", 6)[-1]
        if path.startswith(tree):
            return self.answer(200, json.dumps(self.inside(path.removeprefix(tree).strip("/"))).encode())
        if path.startswith("/datasets/maker/chats/resolve/") and file in FILES:
            digest = hashlib.sha1(FILES[file]).hexdigest()
            return self.answer(200, FILES[file], {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
        return self.answer(404, b"", {"X-Error-Code": "EntryNotFound" if "/resolve/" in path else "RepoNotFound"})

    do_HEAD = do_GET

    @staticmethod
    def inside(folder):
        prefix = f"{folder}/" if folder else ""
        entries = {}
        for name, content in FILES.items():
            if name.startswith(prefix):
                first, deeper, _ = name.removeprefix(prefix).partition("/")
                kind = "directory" if deeper else "file"
                entries[first] = {
                    "type": kind,
                    "path": prefix + first,
                    "oid": COMMIT,
                    "size": 0 if deeper else len(content),
                }
        return list(entries.values())

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in {**dict(headers), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = tmp_path_factory.mktemp("hub_cache")
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    server.shutdown()
    server.server_close()


def prepare(environment, out, *arguments):
    program = [*PROGRAM, "prepare", *arguments, "--out", str(out)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def test_a_slice_of_a_split_then_the_same_offline(hub, tmp_path):
    online = prepare(hub, tmp_path / "online", "maker/chats", "--config", "default", "--split", "train_sft[:10%]")
    assert online.returncode == 0, online.stderr
    parts = {name: (tmp_path / "online" / name).read_bytes() for name in ("train_data.jsonl", "test_data.jsonl")}
    rows = [json.loads(line) for content in parts.values() for line in content.splitlines()]
    assert sorted(map(str, rows)) == sorted(str(chat(number)) for number in range(30))
    assert [content.count(b"\n") for content in parts.values()] == [24, 6]

    offline = {**hub, "HF_ENDPOINT": "http://127.0.0.1:9"}
    result = prepare(offline, tmp_path / "offline", "maker/chats", "--split", "train_sft[:10%]")
    assert result.returncode == 0, result.stderr
    assert {name: (tmp_path / "offline" / name).read_bytes() for name in parts} == parts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["maker/chats", "--split", "validation"], "['train_sft']"),
        (["maker/chats", "--split", "train_sft[:x]"], "train_sft[:x]"),
        (["maker/chats", "--config", "other"], "['default']"),
        (["maker/nothing"], "neither here nor a dataset on the hub"),
        (["maker/gated"], "HF_TOKEN"),
        (["maker/--chats"], "correct the name"),
    ],
)
def test_what_the_hub_does_not_have(hub, tmp_path, arguments, words):
    result = prepare(hub, tmp_path / "out", *arguments)
    assert result.returncode == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert words in line and line.startswith(f"error: {arguments[0]}: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_cannot_be_fetched_fails_at_once(tmp_path):
    began = time.monotonic()
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    result = prepare(offline, tmp_path / "out", "sample", "--tokenizer", "maker/tokenizer")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --tokenizer maker/tokenizer: cannot be loaded")
    assert time.monotonic() - began < 40
