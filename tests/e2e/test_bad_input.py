"""Every bad input of fine_tune.py is refused with a line for each finding, exit code 2 and nothing left behind.

python -m pytest tests/e2e/test_bad_input.py
"""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from errors import BAD_INPUT
from tests.devtools.conftest import as_somebody
from tests.training.program import DEADLINE, Program, sample_rows, write_rows
from tests.training.tracking_server import free_port

CHAT = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}


@pytest.fixture
def fresh(tmp_path) -> Program:
    """The program with an empty folder of runs."""
    return Program(tmp_path)


def assert_nothing_left(program: Program) -> None:
    left = list(program.runs.rglob("*")) if program.runs.exists() else []
    assert left == []


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def empty(path: Path) -> None:
    path.write_text("")


def binary(path: Path) -> None:
    path.write_bytes(b"\x7fELF\x02\x01\x01\x00" + bytes(range(256)) * 20)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def no_answer(path: Path) -> None:
    write_rows(path, [CHAT, {"messages": CHAT["messages"][:1]}])


@pytest.mark.parametrize(
    ("damage", "line", "words"),
    [
        (missing, "", "No such file or directory; prepare one with"),
        (folder, "", "Is a directory; prepare one with"),
        (empty, "", "is empty; give a file with at least one conversation"),
        (binary, "", "is a binary file; give JSONL, JSON, CSV or Parquet"),
        (truncated, ":60", "not JSON"),
        (no_answer, ":2", "no assistant turn"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_dataset(fresh, refused, damage, line, words):
    damage(fresh.train)
    findings = refused(fresh.arguments("bad"))
    assert findings[0].startswith(f"{fresh.train}{line}: ") and words in findings[0]
    assert_nothing_left(fresh)


def test_every_bad_row_of_both_files_is_a_line(fresh, refused):
    bad = {"messages": [{"role": "wizard", "content": "x"}, *CHAT["messages"]]}
    write_rows(fresh.train, [CHAT, bad, CHAT])
    write_rows(fresh.held_out, [CHAT, {"messages": []}])
    findings = refused(fresh.arguments("bad"))
    places = [f"{fresh.train}:2", f"{fresh.train}:3", f"{fresh.held_out}:1", f"{fresh.held_out}:2"]
    assert [finding.partition(": ")[0] for finding in findings] == places
    assert_nothing_left(fresh)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"recipe": "tiny_cpuu"}, "recipe 'tiny_cpuu': not found; did you mean 'tiny_cpu'?"),
        ({"overrides": "{learning_rate: -1.0e-3}"}, "tiny_cpu.yaml: learning_rate: -0.001 must be above 0"),
        ({"overrides": "{learning_rate: fast}"}, "tiny_cpu.yaml: learning_rate: 'fast' is not a number"),
        ({"overrides": "{lerning_rate: 1}"}, "did you mean learning_rate?"),
        ({"overrides": "learning_rate"}, "--overrides: expected a mapping such as {seed: 1}"),
        ({"overrides": "{a: ["}, "--overrides: not a YAML mapping"),
        ({"overrides": "{max_length: 8}"}, "max_length: no conversation has an answer within 8 tokens"),
        ({"model": "./nowhere"}, "model ./nowhere: no such folder"),
    ],
)
def test_recipe_and_model(fresh, refused, changed, words):
    (line,) = refused(fresh.arguments("bad", **changed))
    assert words in line
    assert_nothing_left(fresh)


def test_recipe_file_with_a_wrong_type(fresh, refused):
    recipe = fresh.folder / "mine.yaml"
    recipe.write_text("model_name_or_path: tiny\nmax_length: long\npacking: [true]\n")
    lines = refused(fresh.arguments("bad", recipe=recipe))
    assert [line.split(": ")[:2] for line in lines] == [["mine.yaml", "max_length"], ["mine.yaml", "packing"]]
    assert_nothing_left(fresh)


def test_findings_of_all_kinds_come_together(fresh, refused):
    fresh.train.unlink()
    (fresh.folder / "file").write_text("")
    changed = {"overrides": "{seed: x, packing_: 1}", "model_output_dir": fresh.folder / "file"}
    lines = refused(fresh.arguments("bad", **changed))
    assert [line.partition(": ")[0] for line in lines] == [
        "tiny_cpu.yaml",
        "tiny_cpu.yaml",
        str(fresh.train),
        str(fresh.folder / "file"),
    ]


def test_folder_that_is_no_model(fresh, refused):
    (fresh.folder / "notes").mkdir()
    (line,) = refused(fresh.arguments("bad", model=fresh.folder / "notes"))
    assert "not a model folder that transformers can read" in line
    assert_nothing_left(fresh)


def test_output_folders(fresh, refused):
    file = fresh.folder / "file"
    file.write_text("kept")
    full = fresh.folder / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("kept")
    for changed, words in (
        ({"run_dir": file, "model_output_dir": fresh.folder / "m"}, f"{file}: is a file; give a folder as --run-dir"),
        ({"run_dir": file / "below", "model_output_dir": fresh.folder / "m"}, "cannot be written"),
        ({"run_dir": "/proc/run", "model_output_dir": fresh.folder / "m"}, "/proc/run: cannot be written"),
        ({"model_output_dir": file}, f"{file}: is a file; give a folder as --model_output_dir"),
        ({"model_output_dir": file / "below"}, "cannot be written"),
        ({"model_output_dir": full}, f"{full}: is not empty"),
        ({"run_dir": full / "run", "model_output_dir": full}, full.name),
    ):
        (line,) = refused(fresh.arguments("bad", **changed))
        assert words in line
    assert (file.read_text(), (full / "thesis.txt").read_text()) == ("kept", "kept")
    assert not (fresh.folder / "m").exists()
    assert_nothing_left(fresh)


def test_folder_of_somebody_else(fresh, tmp_path):
    locked, own = tmp_path / "locked", tmp_path / "own"
    locked.mkdir()
    own.mkdir()
    locked.chmod(0o555)
    own.chmod(0o777)
    # pytest's own folders are for its user alone
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    for changed, refused_path in (
        ({"run_dir": locked / "run", "model_output_dir": own / "model"}, locked / "run"),
        ({"run_dir": own / "run", "model_output_dir": locked / "model"}, locked / "model"),
    ):
        result = fresh.run("locked", prefix=as_somebody(), environment={"HOME": str(own)}, **changed)
        assert result.returncode == BAD_INPUT, result.stderr
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"error: {refused_path}: cannot be written")
    assert list(locked.iterdir()) == []
    assert not (own / "run").exists() and not (own / "model").exists()


def test_two_trainings_at_once(fresh, refused):
    run = fresh.runs / "one"
    with fresh.running("one", (run / "run.json").exists):
        (line,) = refused(fresh.arguments("one"))
        assert line == f"{run}: another training is writing this run; wait for it or choose another name"
        assert (run / "run.json").exists()


def test_finished_runs_are_left_alone(program, whole, refused):
    run = program.runs / whole
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert "this run is finished" in refused(program.arguments(whole))[-1]
    other = refused(program.arguments(whole, {"seed": 5}))
    assert "another recipe, model or dataset" in other[-1]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == set(before)


def test_unfinished_run_of_other_data_is_left_alone(fresh, refused):
    run = fresh.runs / "one"
    with fresh.running("one", (run / "before.json").exists):
        pass
    before = (run / "before.json").read_bytes()
    write_rows(fresh.train, sample_rows("train.jsonl", 50))
    (line,) = refused(fresh.arguments("one"))
    assert line == f"{run}: holds a run of another recipe, model or dataset; choose another name or remove it"
    assert (run / "before.json").read_bytes() == before


class SmallHub(BaseHTTPRequestHandler):
    """A model hub that knows one model, whose terms have to be accepted before its files are given."""

    def do_GET(self) -> None:
        known = self.path.startswith("/api/models/maker/gated")
        body = json.dumps({"id": "maker/gated", "sha": "5" * 40, "siblings": [], "gated": "manual"}) if known else ""
        status, code = (200, "") if known else (404, "RepoNotFound")
        if self.path.startswith("/maker/gated/resolve/"):
            status, code = 403, "GatedRepo"
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body.encode())

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub():
    with ThreadingHTTPServer(("127.0.0.1", 0), SmallHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def refused_by_hub(program: Program, model: str, endpoint: str) -> str:
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(program.folder / "hf"), "HF_HUB_OFFLINE": "0"}
    result = program.run("bad", environment=environment, model=model)
    assert result.returncode == BAD_INPUT, result.stderr
    (line,) = result.stderr.splitlines()
    assert_nothing_left(program)
    return line


def test_model_that_the_hub_does_not_have(fresh, hub):
    line = refused_by_hub(fresh, "maker/nothing", hub)
    assert line.startswith("error: maker/nothing: neither here nor a model on the hub; correct the name")


def test_model_whose_terms_are_not_accepted(fresh, hub):
    line = refused_by_hub(fresh, "maker/gated", hub)
    assert line == "error: model maker/gated: access is restricted; accept its terms on the hub and set HF_TOKEN"


def test_no_network(fresh):
    line = refused_by_hub(fresh, "maker/nothing", f"http://127.0.0.1:{free_port()}")
    assert line.startswith("error: model maker/nothing: the model hub cannot be reached; check the network")


def test_tracking_server_that_does_not_answer(fresh):
    result = fresh.run("bad", environment={"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"})
    assert result.returncode == BAD_INPUT, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: MLFLOW_TRACKING_URI http://127.0.0.1:")
    assert_nothing_left(fresh)


def test_help_needs_nothing_heavy():
    script = "import sys; sys.argv = ['fine_tune.py', '--help']\nimport fine_tune\ntry: fine_tune.main()\n"
    script += "except SystemExit as end: code = end.code\n"
    script += "print(code, sorted({'torch', 'transformers', 'mlflow', 'datasets', 'pyarrow'} & set(sys.modules)))"
    training = Path(__file__).parents[2] / "training"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=training, capture_output=True, text=True, timeout=DEADLINE
    )
    assert result.stdout.splitlines()[-1] == "0 []"
    assert "--model_output_dir" in result.stdout and "python fine_tune.py --recipe" in result.stdout


def test_command_of_the_job_is_understood(fresh):
    import yaml

    job = yaml.safe_load((Path(__file__).parents[2] / "training" / "job.yaml").read_text())
    written = {word.lstrip("-") for word in job["command"].split() if word.startswith("--")}
    assert written - {"model"} == {word.lstrip("-") for word in fresh.arguments("x") if word.startswith("--")}
    assert json.loads(job["inputs"]["overrides"]) == {}
