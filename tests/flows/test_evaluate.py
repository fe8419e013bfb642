"""The evaluation: its measures, its lines, and the program over real models and over endpoints that fail.

pytest tests/flows/test_evaluate.py
"""

import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest

from flows.evaluate.compare import compare
from flows.evaluate.lines import BadData, read
from flows.evaluate.tracking import TrackingError, log
from tests.flows.endpoints import endpoint, models, refusal, whole
from tests.flows.parts import FLOW_PYTHON, ROOT, needs, prompt_flow
from tests.training.tracking_server import free_port, tracking_server

PROGRAM = [str(FLOW_PYTHON), "-m", "flows.evaluate"]


def evaluate(folder: Path, *words: object, **settings: str) -> subprocess.CompletedProcess:
    """The program in Prompt flow's environment, whose home is the test's own folder."""
    command = [*PROGRAM, "--out", str(folder / "out"), *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=prompt_flow(folder, **settings), capture_output=True, text=True, timeout=240, check=False
    )


def conversation(*texts: str, system: str = "") -> str:
    head = [{"role": "system", "content": system}] if system else []
    turns = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    return json.dumps({"messages": [*head, *turns]}, ensure_ascii=False)


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "test.jsonl"
    # (a line separator within a text ends no line of the file)
    file.write_text(conversation("Who?", "Bill\u2028Gates") + "\n" + conversation("When?\x85", "1975") + "\n")
    return file


def test_lines_keep_what_was_said_before(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text(conversation("a", "b", "c", "d", system="brief") + "\n\n" + conversation("e", "f") + "\n")
    first, second = read(file)
    assert first["history"] == [{"inputs": {"input_data": "a"}, "outputs": {"answer": "b"}}]
    assert (first["question"], first["expected"], first["system"]) == ("c", "d", "brief")
    assert (second["line"], second["question"]) == (3, "e")


def test_every_bad_line_is_named(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(["{", conversation("a"), '{"messages": [{"role": "user"}]}', conversation("a", "b")]))
    with pytest.raises(BadData) as failed:
        read(file)
    assert [line.partition(":")[0] for line in str(failed.value).splitlines()] == [
        f"{file}, line {n}" for n in (1, 2, 3)
    ]
    with pytest.raises(BadData, match="make data"):
        read(tmp_path / "absent.jsonl")


def test_flips():
    lines = [{"line": number, "question": "q", "expected": "e"} for number in (1, 2, 3)]
    base = ({0: "x", 1: "e", 2: "e"}, {place: {"exact_match": value} for place, value in enumerate((0.0, 1.0, 1.0))})
    tuned = ({0: "e", 1: "x", 2: "e"}, {place: {"exact_match": value} for place, value in enumerate((1.0, 0.0, 1.0))})
    found = compare(lines, {"base": base, "tuned": tuned})
    assert [(row.line, row.flip) for row in found.flipped] == [(1, "better"), (2, "worse")]
    assert found.means["tuned"]["exact_match"] == pytest.approx(2 / 3)


def test_two_endpoints_are_compared(data, tmp_path):
    with (
        endpoint(models=[models()], chat=[whole("<b> Bill\u2028Gates </b>")]) as (tuned, _),
        endpoint(models=[models()], chat=[whole("I'm sorry, I can't say.")]) as (base, _),
    ):
        told = {"PHIKIT_ENDPOINT_URI": tuned, "PHIKIT_BASE_ENDPOINT_URI": base}
        done = evaluate(tmp_path, "--data", data, **told)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["base"]["refusal"] == 1
    assert metrics["tuned"]["refusal"] == 0
    assert metrics["tuned"]["token_f1"] > metrics["base"]["token_f1"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert not any(word in page for word in ("http://", "https://", "<script", "<link"))


def test_failed_lines_are_named_and_fail_the_program(data, tmp_path):
    with endpoint(models=[models()], chat=[refusal("400 Bad Request", "too long")]) as (uri, _):
        done = evaluate(tmp_path, "--data", data, PHIKIT_ENDPOINT_URI=uri)
    assert done.returncode == 1
    for number in (1, 2):
        assert f"tuned, {data}, line {number}: " in done.stderr
    assert "too long" in done.stderr
    assert "2 of 2 lines failed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_runs_own_report_is_not_written_over(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("{}")
    done = evaluate(tmp_path, "--data", data)
    assert done.returncode == 2
    assert "holds metrics.json of something else; name another folder" in done.stderr
    assert (tmp_path / "out" / "metrics.json").read_text() == "{}"


def test_bad_data_is_told_before_anything_runs(data, tmp_path):
    for words, finding in (
        (["--data", tmp_path / "absent.jsonl"], "No such file"),
        (["--data", data, "--limit", "0"], "--limit 0: must be 1 or more"),
        (["--data", data, "--max-tokens", "-1"], "--max-tokens -1: must be 1 or more"),
    ):
        done = evaluate(tmp_path, *words)
        assert done.returncode == 2
        assert finding in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("answer", "measures"),
    [
        ("the Bill Gates!", {"exact_match": 1.0, "rouge_l": 1.0, "refusal": 0.0}),
        ("Gates Bill", {"exact_match": 0.0, "token_f1": 1.0, "rouge_l": 0.5}),
        ("I don’t know.", {"exact_match": 0.0, "refusal": 1.0, "words": 3.0}),
        ("", {"token_f1": 0.0, "refusal": 1.0, "words": 0.0}),
    ],
)
def test_measures(answer, measures):
    needs(FLOW_PYTHON, "setup-flow")
    program = "import json, sys; from measure import measure; print(json.dumps(measure('Bill Gates', sys.argv[1])))"
    done = subprocess.run(
        [str(FLOW_PYTHON), "-c", program, answer],
        cwd=ROOT / "flows" / "evaluate",
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(done.stdout)
    assert {name: found[name] for name in measures} == measures


def test_the_means_are_a_run_of_a_real_tracking_server(tmp_path):
    with tracking_server(tmp_path) as (uri, _):
        told = {"MLFLOW_TRACKING_URI": uri}
        # the first makes the experiment, the second finds it
        runs = [log({"tuned.exact_match": value}, {"data": "test.jsonl"}, told) for value in (0.5, 0.75)]
        address = f"{uri}/api/2.0/mlflow/runs/get?run_id={runs[1]}"
        with urllib.request.urlopen(address, timeout=60) as got:
            run = json.load(got)["run"]
    assert run["info"]["status"] == "FINISHED"
    assert [(metric["key"], metric["value"]) for metric in run["data"]["metrics"]] == [("tuned.exact_match", 0.75)]


def test_a_tracking_server_that_is_not_there():
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        log({}, {}, {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"})
