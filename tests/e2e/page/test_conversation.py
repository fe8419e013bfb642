"""A person who talks with the model: asks, stops, retries, edits, compares, finds it again.

pytest tests/e2e/page/test_conversation.py
PHIKIT_TEST_PICTURES=docs pytest tests/e2e/page -k ask      # keeps pictures in docs/
"""

import json
import os
import re
import urllib.request

import pytest

from tests.serving.server import ANSWER, QUESTION

if not os.environ.get("CI"):
    pytest.importorskip("playwright", reason="playwright is not installed; run: make setup-test")
from playwright.sync_api import expect


def test_ask_and_read_the_right_answer(stack, tab):
    here = tab(stack)
    here.ask(QUESTION)
    here.done(1)
    expect(here.answers).to_have_text([ANSWER])
    expect(here.message).to_have_value("")
    here.ask("When was Microsoft founded?")
    here.done(2)
    here.picture("chat")
    expect(here.questions).to_have_text([QUESTION, "When was Microsoft founded?"])
    expect(here.answers).to_have_text([ANSWER, re.compile("1975")])
    card = here.page.locator("#card")
    expect(card).to_contain_text("tiny")
    expect(card).to_contain_text(re.compile(r"exact match \d+% → \d+%"))
    with here.page.context.expect_page() as opened:
        card.get_by_role("link", name="report").click()
    expect(opened.value.locator("h1")).to_be_visible()


def test_an_answer_is_seen_as_it_comes_and_stopped_with_escape(long_stack, tab):
    here = tab(long_stack)
    here.set("tokens", 1500)
    here.ask("Go on for ever")
    expect(here.answers).to_have_count(1)
    expect(here.stop).to_be_visible()
    lengths = here.page.evaluate(
        """async () => {
            const lengths = new Set();
            while (lengths.size < 5) {
                lengths.add(document.querySelector('#chat [data-testid=bot]').textContent.length);
                await new Promise(requestAnimationFrame);
            }
            return [...lengths];
        }"""
    )
    assert lengths == sorted(lengths)
    assert long_stack.scoring.busy()[0] == 1
    here.message.press("Escape")
    here.done(1)
    # the scoring server has been told
    long_stack.scoring.until_idle()
    kept = here.answers.inner_text()
    here.reload()
    expect(here.answers).to_have_text([kept])


def test_the_stop_button_stops_and_another_answer_follows(long_stack, tab):
    here = tab(long_stack)
    here.set("tokens", 1500)
    here.ask("Go on")
    expect(here.answers).to_have_count(1)
    here.stop.click()
    here.done(1)
    here.set("tokens", 5)
    here.ask("And on")
    here.done(2)


def test_leaving_breaks_off_and_keeps(long_stack, tab):
    here = tab(long_stack)
    here.set("tokens", 1500)
    here.ask("Left behind")
    here.begun(1)
    here.page.locator("#new").click()
    expect(here.questions).to_have_count(0)
    long_stack.scoring.until_idle()
    here.conversation("Left behind").click()
    expect(here.questions).to_have_text(["Left behind"])
    expect(here.answers).to_have_count(1)
    expect(here.stop).to_have_count(0)


def test_reload_finds_the_conversation_and_so_does_search(stack, tab):
    here = tab(stack)
    here.ask("Who wrote Altair BASIC?")
    here.done(1)
    said = here.answers.inner_text()
    assert "conversation=" in here.page.url
    here.reload()
    expect(here.answers).to_have_text([said])
    here.page.locator("#new").click()
    expect(here.answers).to_have_count(0)
    assert "conversation=" not in here.page.url
    search = here.page.locator("#search input, #search textarea")
    search.fill("altair")
    expect(here.page.locator("#listing label")).to_have_count(1)
    here.conversation("Who wrote Altair BASIC?").click()
    expect(here.answers).to_have_text([said])
    search.fill("nothing of the sort")
    expect(here.page.locator("#listing label")).to_have_count(0)


def test_rename_and_delete(stack, tab):
    here = tab(stack)
    here.ask("When was Microsoft founded?")
    here.done(1)
    here.rename("The year")
    expect(here.conversation("The year")).to_be_visible()
    here.page.once("dialog", lambda dialog: dialog.dismiss())
    here.page.locator("#delete").click()
    expect(here.answers).to_have_count(1)
    here.page.once("dialog", lambda dialog: dialog.accept())
    here.page.locator("#delete").click()
    expect(here.answers).to_have_count(0)
    expect(here.conversation("The year")).to_have_count(0)


def test_retry_and_edit(stack, tab):
    here = tab(stack)
    here.ask("Who founded Microsft?")
    here.done(1)
    here.outdate()
    here.page.locator("#chat").get_by_label("Retry").click()
    here.done(1)
    expect(here.questions).to_have_count(1)
    here.page.locator("#chat").get_by_label("Edit").first.click()
    box = here.page.locator("#chat textarea")
    box.fill(QUESTION)
    here.page.locator("#chat").get_by_label("Submit").click()
    expect(here.questions).to_have_text([QUESTION])
    expect(here.answers).to_have_text([ANSWER])
    here.reload()
    expect(here.questions).to_have_text([QUESTION])


def test_thumbs_are_kept_and_exported(stack, tab):
    here = tab(stack)
    here.ask(QUESTION)
    here.done(1)
    here.page.locator("#chat").get_by_label("Like", exact=True).click()
    liked = here.page.locator("#chat").get_by_label("Liked", exact=True)
    expect(liked).to_be_visible()
    here.reload()
    expect(liked).to_be_visible()
    with here.page.expect_download() as download:
        here.page.get_by_role("link", name="chats").click()
    rows = [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    assert {"messages": turns} in rows


def test_compare_and_choose(stack, tab):
    here = tab(stack)
    here.settings()
    here.page.get_by_label("Compare with the base model").check()
    expect(here.page.locator("#base")).to_be_visible()
    here.set("tokens", 30)
    here.ask(QUESTION)
    here.done(1)
    expect(here.answers).to_have_text([ANSWER])
    expect(here.base_answers).to_have_count(1)
    other = here.base_answers.inner_text()
    assert other.strip() and other != ANSWER
    here.picture("compare")
    here.page.locator("#better-tuned").click()
    expect(here.page.locator("#choice")).to_be_hidden()
    with urllib.request.urlopen(f"{stack.address}/export/preferences.jsonl") as response:
        pairs = [json.loads(line) for line in response]
    assert {
        "prompt": [{"role": "user", "content": QUESTION}],
        "chosen": [{"role": "assistant", "content": ANSWER}],
        "rejected": [{"role": "assistant", "content": pairs[-1]["rejected"][0]["content"]}],
    } in pairs


def test_without_a_base_model_there_is_nothing_to_compare(long_stack, tab):
    here = tab(long_stack)
    here.settings()
    expect(here.page.get_by_label("Compare with the base model")).to_be_disabled()
    expect(here.page.locator("#compare")).to_contain_text("PHIKIT_BASE_ENDPOINT_URI")
    expect(here.page.locator("#card")).to_contain_text("random")
