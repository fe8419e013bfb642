"""What the page shows of a conversation and sends of it, and the card of the model."""

import json
import subprocess
from dataclasses import replace

import pytest
import yaml

from flows.history import Message
from flows.page import model_card
from flows.page.conversation import (
    LONGEST,
    Refused,
    View,
    base_bubbles,
    bubbles,
    checked,
    compared,
    preferred,
    question_before,
    shown,
    system_of,
    thumbs,
    turns,
)
from tests.flows.parts import CHAT_PYTHON, ROOT, environment, needs


def message(name: str, role: str, content: str, rating: int = 0, **details: object) -> Message:
    return Message(name, role, content, 1.0, rating, details)


SYSTEM = message("0", "system", "Be brief.")
FIRST = message("1", "user", "Who?")
ANSWER = message("2", "assistant", "Bill.", 1, alternatives=[{"model": "base", "content": "Nobody."}])
UNANSWERED = message("3", "user", "And?")
SECOND = message("4", "user", "When?")
LAST = message("5", "assistant", "1975.", -1)
ALL = [SYSTEM, FIRST, ANSWER, UNANSWERED, SECOND, LAST]


def test_the_system_prompt_is_no_bubble():
    assert [one["content"] for one in bubbles(View("c", ALL))] == ["Who?", "Bill.", "And?", "When?", "1975."]
    assert system_of(ALL) == "Be brief."
    assert system_of(ALL[1:]) == ""


def test_the_answer_that_comes_is_the_last_bubble():
    view = View("c", ALL[:2], partial="Bi", partial_base="")
    assert bubbles(view)[-1] == {"role": "assistant", "content": "Bi"}
    assert base_bubbles(view)[-1] == {"role": "assistant", "content": ""}


def test_the_base_column_has_its_own_answers_alone():
    assert [one["content"] for one in base_bubbles(View("c", ALL))] == ["Who?", "Nobody.", "And?", "When?"]


def test_only_answered_questions_go_along():
    assert turns(ALL) == [
        {"inputs": {"input_data": "Who?"}, "outputs": {"answer": "Bill."}},
        {"inputs": {"input_data": "When?"}, "outputs": {"answer": "1975."}},
    ]
    assert turns(ALL[:2]) == []


def test_thumbs_are_those_of_the_answers():
    assert thumbs(ALL) == ["Like", "Dislike"]
    assert thumbs([FIRST, message("6", "assistant", "x")]) == [None]


@pytest.mark.parametrize(
    ("index", "question", "follower"),
    [(0, FIRST, ANSWER), (1, FIRST, ANSWER), (2, UNANSWERED, SECOND), (99, SECOND, LAST)],
)
def test_the_question_of_a_place(index, question, follower):
    assert question_before(ALL, index) == (question, follower)


def test_no_question_no_second_try():
    with pytest.raises(Refused, match="no question"):
        question_before([SYSTEM], 3)
    assert question_before([SYSTEM, FIRST], 5) == (FIRST, None)


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_message_is_refused(text):
    with pytest.raises(Refused, match="empty"):
        checked(text)


def test_a_message_of_100_kb_is_refused_in_bytes_that_are_counted():
    with pytest.raises(Refused, match=r"100,000 bytes, and 65,536"):
        checked("x" * 100_000)
    with pytest.raises(Refused, match="bytes"):
        checked("é" * (LONGEST // 2 + 1))
    assert checked("é" * (LONGEST // 2)) == "é" * (LONGEST // 2)


@pytest.mark.parametrize("text", ["👩‍👩‍👧 ok", "שלום עולם", "<script>alert(1)</script>", "a\u2028b", "  indented"])
def test_text_is_sent_as_it_is(text):
    assert checked(text) == text


def test_half_a_character_is_made_whole():
    assert checked("a\ud83d") == "a?"


def test_a_view_changes_into_another():
    assert View("c").change(alert="no") == View("c", alert="no")
    assert shown(ALL) == ALL[1:]


def test_the_card_of_a_run(tmp_path):
    run = tmp_path / "my run <b>"
    (run / "model").mkdir(parents=True)
    metrics = {"before": {"exact_match": 0.0, "token_f1": 0.125}, "after": {"exact_match": 0.9899, "token_f1": 1.0}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "report.html").write_text("<p>report")
    (run / "model" / "MLmodel").write_text(yaml.safe_dump({"metadata": {"model": "tiny & co"}}))
    (tmp_path / "latest").symlink_to(run.name)
    card = model_card.read(tmp_path / "latest")
    assert card == model_card.Card(
        "my run <b>",
        "tiny & co",
        (("exact match", 0.0, 0.9899), ("token F1", 0.125, 1.0)),
        (run / "report.html"),
    )
    shown_as = model_card.as_html(card)
    assert "my run &lt;b&gt;" in shown_as and "tiny &amp; co" in shown_as
    assert "exact match 0% → <b>99%</b>" in shown_as and 'href="report?run=my%20run%20%3Cb%3E"' in shown_as


@pytest.mark.parametrize("text", ["", "{", "[]", '{"before": 1}', '{"before": {"exact_match": "x"}}'])
def test_a_damaged_run_has_a_card_with_what_is_left(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("a: [")
    card = model_card.read(tmp_path)
    assert card == model_card.Card(run=tmp_path.name)
    assert tmp_path.name in model_card.as_html(card)


def test_the_card_is_that_of_the_run_that_is_served(tmp_path):
    for name in ("older", "newer"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "MLmodel").write_text(yaml.safe_dump({"metadata": {"model": f"the {name}"}}))
    (tmp_path / "latest").symlink_to("newer")
    latest = tmp_path / "latest"
    for told in ("newer", ""):
        card, newest = model_card.served(latest, told)
        assert (card.model, newest) == ("the newer", "")
        assert "still serves" not in model_card.as_html(card, newest)
    card, newest = model_card.served(latest, "older")
    assert (card.model, newest) == ("the older", "newer")
    assert "still serves older; <code>make up</code>" in model_card.as_html(card, newest)
    # one that is not here; and what is no name at all
    assert model_card.served(latest, "gone") == (model_card.Card("gone"), "newer")
    assert model_card.served(latest, "../older")[0].model == model_card.served(latest, "..")[0].model == "the newer"


def test_a_run_that_may_not_be_read_is_named(tmp_path):
    needs(CHAT_PYTHON, "setup-chat")
    run = tmp_path / "mine"
    run.mkdir(mode=0o000)
    # (root may read everything: as somebody else)
    code = (
        "import os, sys; from pathlib import Path; from flows.page import model_card as m; "
        "os.geteuid() or os.seteuid(65534); print(m.as_html(m.read(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [CHAT_PYTHON, "-c", code, run], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be read by user" in done.stdout and "PHIKIT_COMPOSE_USER" in done.stdout
    assert str(run.parents[1]) in done.stdout and len(done.stdout.splitlines()) == 1


def test_a_taken_base_answer_stays_in_its_column():
    taken = replace(
        ANSWER, content="of the base", rating=1,
        details={"model": "base", "preferred": True, "alternatives": [{"content": "of the tuned", "model": "tuned"}]},
    )  # fmt: skip
    view = View("c", [FIRST, taken])
    assert [one["content"] for one in bubbles(view)] == [FIRST.content, "of the tuned"]
    assert [one["content"] for one in base_bubbles(view)] == [FIRST.content, "of the base"]
    assert thumbs(view.messages) == [None]
    assert compared(view.messages) and not compared([FIRST, LAST])


def test_each_of_two_answers_keeps_its_thumb_and_its_ending():
    tuned = replace(
        ANSWER, rating=-1, details={"model": "tuned", "stopped": True, "alternatives": [{"content": "of the base"}]}
    )
    last, chosen = preferred([FIRST, tuned], base=True)
    assert last == tuned
    assert (chosen.content, chosen.rating, chosen.details.get("stopped")) == ("of the base", 0, None)
    mine = {"content": ANSWER.content, "model": "tuned", "rating": -1, "stopped": True}
    assert chosen.details["alternatives"] == [mine]
    half = replace(tuned, details={"alternatives": [{"content": "of the ba", "stopped": True}]})
    assert preferred([FIRST, half], base=True)[1].details["stopped"] is True
    with pytest.raises(Refused, match="two answers"):
        preferred([FIRST], base=False)


def test_no_run_is_said(tmp_path):
    card = model_card.read(tmp_path / "none")
    assert card == model_card.Card()
    assert "make local-train" in model_card.as_html(card)
