"""Prompt flow's own command line, with the flows as they are, over the fine-tuned model and what it was before.

pytest tests/flows/test_prompt_flow.py
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.flows.parts import FLOW_PYTHON, ROOT, prompt_flow
from tests.serving.models import HELD_OUT
from tests.serving.server import ANSWER, QUESTION, serving

LINES = 8
Program = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def told(tiny_model, tmp_path_factory) -> Iterator[dict[str, str]]:
    """Settings for two scoring servers: the model, and its base."""
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as servers:
        tuned = servers.enter_context(serving(tiny_model, folder / "tuned"))
        base = servers.enter_context(serving(tiny_model.parent / "base", folder / "base"))
        yield {"PHIKIT_ENDPOINT_URI": f"{tuned.url}/score", "PHIKIT_BASE_ENDPOINT_URI": f"{base.url}/score"}


@pytest.fixture
def program(told, tmp_path) -> Program:
    """A program of Prompt flow's environment, run to its end."""

    def run(name: str, *words: object) -> subprocess.CompletedProcess:
        environment = prompt_flow(tmp_path, **told)
        command = [str(FLOW_PYTHON.with_name(name)), *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def test_flow_test_answers_the_default_question(program):
    done = program("pf", "flow", "test", "--flow", "flows/chat")
    said = done.stdout[done.stdout.index("{") :]
    assert json.loads(said) == {"answer": ANSWER}
    asked = program("pf", "flow", "test", "--flow", "flows/chat", "--inputs", "model=base", f"input_data={QUESTION}")
    assert ANSWER not in asked.stdout


def test_a_batch_run_and_its_evaluation(program, tmp_path):
    held_out = [json.loads(line)["messages"] for line in HELD_OUT.read_text().splitlines()[:LINES]]
    data = tmp_path / "lines.jsonl"
    rows = ({"question": chat[-2]["content"], "expected": chat[-1]["content"]} for chat in held_out)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asking = ["pf", "run", "create", "--flow", "flows/chat", "--data", data, "--name", "asked"]
    program(*asking, "--column-mapping", "input_data=${data.question}")
    measuring = ["pf", "run", "create", "--flow", "flows/evaluate", "--data", data, "--run", "asked"]
    mapping = ["--column-mapping", "expected=${data.expected}", "answer=${run.outputs.answer}"]
    program(*measuring, "--name", "measured", *mapping)
    metrics = json.loads(program("pf", "run", "show-metrics", "--name", "measured").stdout)
    assert metrics["exact_match"] >= 0.75
    assert metrics["refusal"] == 0


def test_the_evaluation_tells_the_model_from_its_base(program, tmp_path):
    words = ["-m", "flows.evaluate", "--data", HELD_OUT, "--limit", LINES, "--out", tmp_path / "out"]
    done = program("python", *words)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["base"]["exact_match"] == 0
    assert metrics["tuned"]["exact_match"] >= 0.75
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    flipped = [row for row in answers if row["flip"] == "better"]
    assert len(answers) == LINES and len(flipped) == round(LINES * metrics["tuned"]["exact_match"])
    assert f"{len(flipped)} better, 0 worse" in done.stdout
