"""`phikit export`: what the exporter is told, what it may read and write, and that its exit code comes through."""

import json
import shutil

import pytest

from devtools.data import digest
from devtools.models import HELD_OUT_DIGEST
from devtools.settings import ROOT

PROGRAM = """
import json, os, sys
from pathlib import Path

model = Path(sys.argv[1])
(model / "artifacts" / "onnx-int4").mkdir(parents=True, mode=0o700)
facts = {
    "arguments": sys.argv[2:],
    "package": __package__,
    "writable": [name for name in (str(model), "serving") if os.access(name, os.W_OK)],
    "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
}
if "--held-out" in sys.argv:
    facts["held_out"] = Path(sys.argv[sys.argv.index("--held-out") + 1]).read_text()
(model / "artifacts" / "facts.json").write_text(json.dumps(facts))
sys.exit(1 if "64" in sys.argv else 0)
"""


@pytest.fixture
def exporting(checkout):
    """The checkout with a small exporter, and a finished run that was judged on the checkout's own data."""
    shutil.copytree(ROOT / "serving", checkout.root / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout.root / "serving" / "export_onnx.py").write_text(PROGRAM)
    metadata = {HELD_OUT_DIGEST: digest(checkout.root / "data" / "test_data.jsonl")}
    checkout.write("runs/first/model/MLmodel", json.dumps({"metadata": metadata}))
    checkout.write("runs/first/job.json", "{}")
    (checkout.root / "runs" / "latest").symlink_to("first")
    checkout.give_away()
    return checkout


def facts(exporting) -> dict:
    return json.loads((exporting.root / "runs" / "first" / "model" / "artifacts" / "facts.json").read_text())


def test_the_run_s_own_conversations_judge_it(exporting, backend):
    done = exporting.phikit("export", "--backend", backend)
    assert done.returncode == 0, done.stderr
    held_out = exporting.root / "data" / "test_data.jsonl"
    seen = facts(exporting)
    assert seen["arguments"] == ["--precision", "int4", "--held-out", str(held_out)]
    assert seen["held_out"] == held_out.read_text()
    assert seen["package"] == "serving"
    if backend == "docker":
        assert seen["writable"] == [str(exporting.root / "runs" / "first" / "model")]
        assert seen["interfaces"] == ["lo"]
    folder = exporting.root / "runs" / "first" / "model" / "artifacts" / "onnx-int4"
    assert folder.stat().st_mode & 0o055 == 0o055
    assert folder.stat().st_uid == exporting.root.stat().st_uid


def test_options_reach_the_exporter_and_its_exit_code_comes_back(exporting):
    other = exporting.write("my questions.jsonl", "{}\n")
    done = exporting.phikit(
        *("export", "--backend", "venv", "--run", "first", "--format", "onnx", "--precision", "float32"),
        *("--precision", "int8", "--held-out", "my questions.jsonl", "--force", "--max-perplexity-ratio", "1.2"),
        *("--min-agreement", "0.5", "--questions", "3", "--block-size", "64"),
    )
    assert done.returncode == 1, done.stderr
    assert facts(exporting)["arguments"] == [
        *("--precision", "float32", "--precision", "int8", "--held-out", str(other), "--force"),
        *("--max-perplexity-ratio", "1.2", "--min-agreement", "0.5", "--questions", "3", "--block-size", "64"),
    ]


def test_without_its_conversations_a_quantised_export_needs_a_word(exporting):
    exporting.write("data/test_data.jsonl", "{}\n")
    done = exporting.phikit("export", "--backend", "venv")
    assert done.returncode == 2
    assert "error: --held-out: the conversations that runs/first/model was judged on are not in data/" in done.stderr
    assert not (exporting.root / "runs" / "first" / "model" / "artifacts").exists()
    for words in (["--force"], ["--precision", "float32"]):
        shutil.rmtree(exporting.root / "runs" / "first" / "model" / "artifacts", ignore_errors=True)
        done = exporting.phikit("export", "--backend", "venv", *words)
        assert done.returncode == 0, done.stderr
        assert "--held-out" not in facts(exporting)["arguments"]


def test_every_finding_comes_at_once(exporting):
    done = exporting.phikit("export", "--backend", "venv", "--run", "none", "--held-out", "nowhere.jsonl")
    assert done.returncode == 2
    findings = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in findings] == ["runs/none", "--held-out nowhere.jsonl"]
