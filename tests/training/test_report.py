"""What a run leaves behind: a page that needs nothing else, the numbers in their shape, and no scaffolding.

python -m pytest tests/training/test_report.py
"""

import json
import math
from html.parser import HTMLParser

import pytest

from evaluation import Answer, Evaluation
from report import loss_curve, print_table, write_report
from tests.training.program import SHORT

LOADING = {"src", "href", "srcset", "data", "poster", "action"}
HISTORY = [
    {"step": 1, "loss": 3.0, "learning_rate": 0.1},
    {"step": 2, "loss": 2.0, "learning_rate": 0.05},
    {"step": 2, "eval_loss": 2.5},
]


class Page(HTMLParser):
    """What a page loads, its tags, and the text of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads, self.tags, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in LOADING]

    def handle_data(self, data):
        self.texts.append(data)


def evaluation(*answers: tuple[str, float], question: str = "Why?") -> Evaluation:
    given = tuple(Answer(question, "Because.", text, float(score == 1), score) for text, score in answers)
    return Evaluation(1.0, math.e, 0.0, 0.5, given)


def test_page_loads_nothing_and_shows_both_answers(finished):
    text = (finished.folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.loads) == 1 and page.loads[0].startswith("data:image/png;base64,")
    assert "script" not in page.tags and "link" not in page.tags
    assert "url(" not in text and "@import" not in text
    for name, value in finished.metrics()["after"].items():
        assert name.replace("_", " ") in page.texts
        assert f"{value:.4g}" in page.texts
    questions = [json.loads(line)["messages"][-2]["content"] for line in finished.program.held_out.open()]
    assert set(questions[: SHORT["num_eval_questions"]]) <= set(page.texts)
    for name in ("recipe", "learning_rate", "data.train.sha256", "version.torch", "train.tokens_per_second"):
        assert name in page.texts


def test_numbers_have_the_agreed_shape(finished):
    metrics = finished.metrics()
    assert metrics.keys() == {"before", "after", "train"}
    measures = {"loss", "perplexity", "exact_match", "token_f1"}
    for when in ("before", "after"):
        assert metrics[when].keys() == measures
        assert metrics[when]["perplexity"] == pytest.approx(math.exp(metrics[when]["loss"]))
    assert {"loss", "steps", "epochs", "seconds", "tokens_per_second", "peak_memory_bytes"} <= metrics["train"].keys()
    assert all(isinstance(value, int | float) for part in metrics.values() for value in part.values())
    assert metrics["after"]["loss"] < metrics["before"]["loss"] - 1
    assert metrics["train"]["epochs"] == 4 and metrics["train"]["tokens_per_second"] > 0


def test_folder_is_clean_afterwards(finished):
    assert sorted(path.name for path in finished.folder.iterdir() if path.name != ".lock") == [
        "base",
        "loss_curve.png",
        "metrics.json",
        "model",
        "report.html",
        "run.json",
    ]
    assert json.loads((finished.folder / "run.json").read_text())["state"] == "finished"


def test_run_ends_in_a_table_and_says_where_things_are(finished):
    out, err = finished.result.stdout, finished.result.stderr
    for words in ("6 held-out questions", "before", "after", "exact match", "better / worse"):
        assert words in out
    assert out.splitlines()[-2:] == [f"report {finished.folder / 'report.html'}", f"model  {finished.model}"]
    assert "Warning" not in out + err and "warn" not in out + err


def test_progress_has_rate_and_time_left(finished):
    lines = [line for line in finished.result.stderr.splitlines() if line.startswith("training: ")]
    steps = finished.metrics()["train"]["steps"]
    assert lines[-1].startswith(f"training: {steps}/{steps}, ")
    assert "step/s" in lines[-1] or "s/step" in lines[-1]
    assert " left, loss " in lines[-1]


def test_answers_are_escaped_and_grouped(tmp_path):
    evil = '<script>alert("x")</script><img src=http://127.0.0.1/x>'
    loss_curve(HISTORY, tmp_path / "curve.png")
    before = evaluation(("worse before", 0.0), ("better before", 0.9), ("the same", 0.3), question=evil)
    after = evaluation((evil, 0.5), ("now wrong", 0.1), ("the same", 0.3), question=evil)
    write_report(tmp_path / "report.html", f"run {evil}", before, after, {"model": evil}, tmp_path / "curve.png")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and page.tags.count("img") == 1
    assert all(load.startswith("data:") for load in page.loads)
    assert evil in page.texts, "shown as it was said"
    assert {"worse before", "better before", "now wrong"} <= set(page.texts)
    summaries = [text for text in page.texts if text.startswith(("Better", "Worse", "Unchanged"))]
    assert summaries == ["Better: 1", "Worse: 1", "Unchanged: 1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "report.html"]


def test_curve_is_a_picture(tmp_path, finished):
    for history in (HISTORY, HISTORY[:1], []):
        loss_curve(history, tmp_path / "curve.png")
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (finished.folder / "loss_curve.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_table_counts_better_and_worse(capsys):
    print_table(evaluation(("a", 0.0), ("b", 0.5)), evaluation(("c", 0.5), ("d", 0.5)))
    assert "1 / 0" in capsys.readouterr().out
