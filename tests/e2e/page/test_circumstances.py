"""The page in trying circumstances: strange text, a phone, the keyboard alone, logins, servers that are not there.

pytest tests/e2e/page/test_circumstances.py
"""

import os
import re
import signal
import sys
from contextlib import ExitStack

import pytest

from tests.serving.server import QUESTION, serving

if not os.environ.get("CI"):
    pytest.importorskip("playwright", reason="playwright is not installed; run: make setup-test")
from playwright.sync_api import expect

from tests.e2e.browser import PHONE
from tests.e2e.page.stack import Stack
from tests.flows.parts import flow, page, running, status
from tests.flows.relay import relaying
from tests.flows.stores import cosmos_store, emulating

SCRIPT = "<script>document.title='broken in'</script><img src=x onerror=\"document.title='broken in'\"> **a & b** &lt;"
HEBREW, FAMILY = "שלום עולם", "👩‍👩‍👧 and 🇮🇱"


@pytest.mark.parametrize("formatted", [False, True])
def test_a_script_in_a_message_is_text(stack, tab, formatted):
    here = tab(stack)
    title = here.page.title()
    if formatted:
        here.settings()
        here.page.get_by_label("Show Markdown formatted").check()
    here.ask(SCRIPT)
    here.done(1)
    if not formatted:
        expect(here.questions).to_have_text([SCRIPT])
        here.page.locator("#chat").get_by_label(re.compile("copy", re.I)).first.click()
        assert here.page.evaluate("navigator.clipboard.readText()") == SCRIPT
        here.page.locator("#chat").get_by_label("Edit").first.click()
        expect(here.page.locator("#chat textarea")).to_have_value(SCRIPT)
    else:
        expect(here.questions.locator("strong")).to_have_text("a & b")
    assert here.page.locator("#chat script, #chat img").count() == 0
    assert here.page.title() == title
    expect(here.page.locator("#listing label").first).to_contain_text("<script>")


def test_emoji_and_right_to_left(stack, tab):
    here = tab(stack)
    here.ask(HEBREW)
    here.done(1)
    here.ask(FAMILY)
    here.done(2)
    expect(here.questions).to_have_text([HEBREW, FAMILY])
    here.reload()
    expect(here.questions).to_have_text([HEBREW, FAMILY])
    # the text begins at the right end of its bubble
    left, right = here.questions.first.evaluate(
        """(box) => {
            const range = document.createRange();
            range.selectNodeContents(box);
            const text = range.getBoundingClientRect(), edge = box.getBoundingClientRect();
            return [text.left - edge.left, edge.right - text.right];
        }"""
    )
    assert right <= left
    here.picture("directions")


def test_a_message_of_100_kb_is_refused_and_stays_in_the_box(stack, tab):
    here = tab(stack)
    here.message.fill("x" * 100_000)
    here.message.press("Enter")
    expect(here.alert).to_have_text("The message has 100,000 bytes, and 65,536 is the most. Shorten it.")
    expect(here.message).to_have_value("x" * 100_000)
    expect(here.questions).to_have_count(0)


def test_a_phone_s_width_and_the_keyboard_alone(stack, tab):
    here = tab(stack, viewport=PHONE, has_touch=True, is_mobile=True)
    # (nothing lies over it)
    here.message.click()
    here.ask(QUESTION)
    here.done(1)
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scroll, width = here.page.evaluate(widths)
    assert scroll <= width == PHONE["width"]
    here.picture("phone")
    seen = set()
    for _ in range(40):
        here.page.keyboard.press("Tab")
        name, outline = here.page.evaluate(
            """() => {
                const one = document.activeElement;
                const style = getComputedStyle(one.closest('#message .input-container') ?? one);
                const name = one.getAttribute('aria-label') || one.textContent.trim() || one.placeholder || one.id;
                return [name, one === document.body ? 'none' : style.outlineStyle + style.boxShadow];
            }"""
        )
        if name:
            seen.add(name)
        assert outline != "nonenone", f"no focus is seen on {name}"
    assert "Retry" in seen and any("How to answer" in name for name in seen)


def test_light_and_dark(stack, tab):
    here = tab(stack, color_scheme="light")
    dark = "document.body.classList.contains('dark')"
    assert not here.page.evaluate(dark)
    here.page.locator("#theme").click()
    here.page.wait_for_function(dark)
    here.reload()
    here.page.wait_for_function(dark)
    here.picture("dark")


def test_each_login_has_conversations_of_its_own(stack, tab, tmp_path):
    logins = "ada:a long password,grace:another password"
    with page(tmp_path, stack.flow, logins=logins, run=tmp_path) as address:
        for path in ("/", "/report", "/export/chats.jsonl", "/config", "/gradio_api/info"):
            assert status(address + path) == 401
        assert status(address + "/health") == status(address + "/ready") == 200
        guarded = Stack(address, stack.flow, stack.scoring, tmp_path)
        ada = tab(guarded, http_credentials={"username": "ada", "password": "a long password"})
        ada.ask(QUESTION)
        ada.done(1)
        expect(ada.conversation(QUESTION)).to_be_visible()
        grace = tab(guarded, http_credentials={"username": "grace", "password": "another password"})
        expect(grace.page.locator("#listing label")).to_have_count(0)
        grace.open(ada.page.url)
        expect(grace.alert).to_contain_text("no longer there")
        expect(grace.answers).to_have_count(0)


def test_a_killed_scoring_server_is_said_and_a_new_one_answers(tiny_model, tab, tmp_path):
    with ExitStack() as parts:
        scoring = parts.enter_context(serving(tiny_model, tmp_path / "scoring"))
        address = parts.enter_context(flow(tmp_path, scoring.url))
        chat = parts.enter_context(page(tmp_path, address))
        here = tab(Stack(chat, address, scoring, tmp_path))
        here.ask(QUESTION)
        here.done(1)
        scoring.process.send_signal(signal.SIGKILL)
        scoring.process.wait()
        here.ask("Where is Microsoft's headquarters?")
        expect(here.alert).to_be_visible()
        expect(here.stop).to_have_count(0)
        here.picture("unreachable")
        said = here.alert.inner_text()
        assert "Traceback" not in said and len(said.splitlines()) == 1
        told = {"PHIKIT_SERVE_MODEL": tiny_model, "PHIKIT_SERVE_PORT": scoring.port, "PHIKIT_SERVE_THREADS": 1}
        command, ready = [sys.executable, "-m", "serving"], lambda: status(f"{scoring.url}/ready") == 200
        with running(command, tmp_path / "again.log", ready, **told):
            here.page.locator("#again").click()
            here.done(2)
            expect(here.alert).to_have_count(0)


def test_a_flow_that_is_not_there_is_said(browser, tab, tmp_path):
    with page(tmp_path, "http://127.0.0.1:1/score") as address:
        here = tab(Stack(address, "", None, tmp_path))
        here.ask(QUESTION)
        expect(here.alert).to_contain_text("make flow-serve")
        assert status(f"{address}/ready") == 503
        # what was asked is kept
        here.reload()
        expect(here.questions).to_have_text([QUESTION])


def test_conversations_in_cosmos_db_are_found_renamed_and_deleted(stack, tab, tmp_path):
    with ExitStack() as parts:
        emulator = parts.enter_context(emulating(tmp_path))
        relay = parts.enter_context(relaying(emulator.port))
        store = cosmos_store(emulator, relay.uri)
        address = parts.enter_context(page(tmp_path, stack.flow, store.environment))
        here = tab(Stack(address, stack.flow, stack.scoring, tmp_path))
        here.ask(QUESTION)
        here.done(1)
        # the account throttles for longer than the client is patient
        relay.plan = [429] * 1000
        here.ask("When was Microsoft founded?")
        expect(here.alert).to_contain_text("429")
        here.picture("throttled")
        relay.plan = []
        here.reload()
        expect(here.questions.first).to_have_text(QUESTION)
        here.rename("Founders")
        expect(here.conversation("Founders")).to_be_visible()
        here.page.once("dialog", lambda dialog: dialog.accept())
        here.page.locator("#delete").click()
        expect(here.conversation("Founders")).to_have_count(0)
