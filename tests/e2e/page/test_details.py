"""What a person sees around the answers: both panes of a choice, what is typed on, signs of waiting, card, search.

pytest tests/e2e/page/test_details.py
"""

import os
import re
import urllib.error
import urllib.request

import pytest

from tests.flows.bad_flow import answering, stream
from tests.flows.parts import page
from tests.serving.server import ANSWER, QUESTION

if not os.environ.get("CI"):
    pytest.importorskip("playwright", reason="playwright is not installed; run: make setup-test")
from playwright.sync_api import expect

from tests.e2e.browser import PHONE
from tests.e2e.page.stack import Stack


def test_two_answers_stay_side_by_side(stack, tab):
    here = tab(stack)
    here.settings()
    here.page.get_by_label("Compare with the base model").check()
    here.set("tokens", 20)
    here.ask(QUESTION)
    here.done(1)
    expect(here.page.locator("#choice")).to_be_visible()
    other = here.base_answers.inner_text()
    here.reload()
    expect(here.page.locator("#choice")).to_be_visible()
    expect(here.base_answers).to_be_visible()
    expect(here.base_answers).to_have_text([other])
    here.page.locator("#better-base").click()
    expect(here.page.locator("#choice")).to_be_hidden()
    for _ in range(2):
        expect(here.answers).to_have_text([ANSWER])
        expect(here.base_answers).to_have_text([other])
        expect(here.base_answers).to_be_visible()
        here.reload()


def test_what_is_typed_on_after_enter_stays(stack, tab):
    here = tab(stack)
    here.message.fill(QUESTION)
    here.page.keyboard.press("Enter")
    here.page.keyboard.type("and when")
    here.done(1)
    expect(here.message).to_have_value("and when")
    expect(here.questions).to_have_text([QUESTION])


def test_before_the_first_word_there_is_a_sign_and_an_address(stack, tab, tmp_path):
    with answering(stream(end=False), hold=True) as uri, page(tmp_path, uri) as address:
        here = tab(Stack(address, uri, None, tmp_path))
        here.ask(QUESTION)
        expect(here.stop).to_be_visible()
        expect(here.answers).to_have_count(1)
        here.picture("waiting")
        signs = here.page.evaluate(
            """[...document.querySelectorAll('#chat *')].map((one) => getComputedStyle(one, '::after').content)
                .filter((content) => content.includes('▍'))"""
        )
        assert len(signs) == 1
        here.page.wait_for_url(re.compile("conversation="))
        here.reload()
        expect(here.questions).to_have_text([QUESTION])


def test_a_search_that_finds_nothing_says_so_and_leaves_the_title(stack, tab):
    here = tab(stack)
    here.ask(QUESTION)
    here.done(1)
    opened = here.page.locator("#listing label:has(:checked)")
    expect(opened).to_have_count(1)
    others = here.page.locator("#listing label:not(:has(:checked))")
    background = "(one) => getComputedStyle(one).backgroundColor"
    if others.count():
        assert opened.evaluate(background) != others.first.evaluate(background)
    here.page.get_by_role("button", name="This conversation").click()
    title = here.page.locator("#title input, #title textarea")
    expect(title).to_have_value(QUESTION)
    here.page.locator("#search input, #search textarea").fill("nothing has these words")
    expect(here.page.locator("#nothing")).to_contain_text("Nothing found")
    expect(title).to_have_value(QUESTION)
    here.page.locator("#search input, #search textarea").fill("")
    expect(here.page.locator("#nothing")).not_to_contain_text("Nothing found")


def test_an_empty_chat_fits_a_phone(stack, tab):
    here = tab(stack, viewport=PHONE, has_touch=True, is_mobile=True)
    examples = here.page.locator("#chat button", has_text="founded")
    expect(examples.first).to_be_visible()
    here.picture("phone-empty")
    for place in range(examples.count()):
        box = examples.nth(place).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    widths = "[document.documentElement.scrollWidth, innerWidth, document.querySelector('#chat').scrollWidth]"
    whole, seen, chat = here.page.evaluate(widths)
    assert whole <= seen == PHONE["width"]
    assert chat <= seen


def test_the_card_names_the_run_that_is_served(stack, tiny_model, tab, tmp_path):
    (tmp_path / "newer" / "model").mkdir(parents=True)
    (tmp_path / "latest").symlink_to("newer")
    with page(tmp_path, stack.flow, run=tmp_path / "latest") as address:
        here = tab(Stack(address, stack.flow, stack.scoring, tmp_path))
        card = here.page.locator("#card")
        expect(card).to_contain_text(f"The scoring server still serves {tiny_model.parent.name}")
        expect(card).to_contain_text("again serves newer")


def test_a_conversation_that_is_too_long_offers_a_new_one(stack, tab):
    here = tab(stack)
    # (no longer answer than the model has room for, before anything is asked)
    here.settings()
    bound = here.page.locator("#tokens input[type=range]")
    expect(bound).not_to_have_attribute("max", "2048")
    here.message.fill("word " * 3000)
    here.message.press("Enter")
    expect(here.alert).to_contain_text("too long for the model; begin a new one")
    expect(here.page.locator("#again")).to_be_hidden()
    box = here.page.locator("#message").bounding_box()
    assert box["y"] + box["height"] <= 800
    here.picture("too-long")


def test_nothing_to_export_is_said(stack, tmp_path):
    with page(tmp_path, stack.flow) as address:
        for name in ("chats", "preferences"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{address}/export/{name}.jsonl")
            assert refused.value.code == 404
            assert refused.value.read().decode().startswith("There is nothing to export yet: ")


def test_code_in_a_formatted_message_is_read_as_written(stack, tab):
    here = tab(stack)
    here.settings()
    here.page.get_by_label("Show Markdown formatted").check()
    here.ask("What does `a < b && c` say?\n\n```python\nif a < b and c > d:\n    print('<b> &lt;')\n```")
    here.done(1)
    code = here.questions.locator("code")
    expect(code).to_have_count(2)
    expect(code.first).to_have_text("a < b && c")
    expect(code.last).to_have_text("if a < b and c > d:\n    print('<b> &lt;')")
