"""A person in a browser: the real page, the real flow, the real scoring server over a trained model.

pytest tests/e2e/test_page.py
PHIKIT_TEST_PICTURES=docs pytest tests/e2e/test_page.py -k ask      # keeps pictures in docs/
"""

import json
import re
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.serving.server import ANSWER, QUESTION, Server, serving

pytest.importorskip("playwright", reason="playwright is not installed; run: make setup-test")

from playwright.sync_api import Browser, expect

from tests.e2e.browser import PHONE, Tab, chromium
from tests.flows.parts import flow, page, running, status

SCRIPT = "<script>document.title='broken in'</script><img src=x onerror=\"document.title='broken in'\"> **a & b** &lt;"
HEBREW, FAMILY = "שלום עולם", "👩‍👩‍👧 and 🇮🇱"


@dataclass(frozen=True)
class Stack:
    """What runs: the page's address, the flow's, and the scoring server."""

    address: str
    flow: str
    scoring: Server
    folder: object


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def endless(random_model, tmp_path_factory) -> Iterator[Server]:
    """A scoring server whose answers go on until they are stopped."""
    with serving(random_model, tmp_path_factory.mktemp("endless")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(tiny_model, endless, tmp_path_factory) -> Iterator[Stack]:
    """A page over the trained model, with the random one as its base."""
    folder = tmp_path_factory.mktemp("stack")
    with ExitStack() as parts:
        scoring = parts.enter_context(serving(tiny_model, folder / "scoring"))
        address = parts.enter_context(flow(folder, scoring.url, endless.url))
        chat = parts.enter_context(page(folder, address, run=tiny_model.parent, compare=1))
        yield Stack(chat, address, scoring, folder)


@pytest.fixture(scope="module")
def long_stack(endless, tmp_path_factory) -> Iterator[Stack]:
    """A page over the model whose answers do not end, without a base model and without a run."""
    folder = tmp_path_factory.mktemp("long")
    with ExitStack() as parts:
        address = parts.enter_context(flow(folder, endless.url))
        chat = parts.enter_context(page(folder, address, run=folder / "none"))
        yield Stack(chat, address, endless, folder)


@pytest.fixture
def tab(browser, tmp_path) -> Iterator[Callable[..., Tab]]:
    """tab(stack): a new tab on its page; none of them may have asked anything of another host or failed in a script."""
    opened: list[Tab] = []

    def open_tab(stack: Stack, **options: object) -> Tab:
        opened.append(Tab(browser, stack.address, tmp_path, **options))
        return opened[-1]

    yield open_tab
    for one in opened:
        one.picture(f"end-{opened.index(one)}", tmp_path)
        one.close()
        assert one.asked and not one.away()
        assert not one.errors


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
    here.page.reload()
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
    expect(here.answers).not_to_have_text([""])
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
    here.page.reload()
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
    here.page.get_by_role("button", name="This conversation").click()
    title = here.page.locator("#title input, #title textarea")
    title.fill("The year")
    title.press("Enter")
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
    here.page.locator("#chat").get_by_label("Retry").click()
    here.done(1)
    expect(here.questions).to_have_count(1)
    here.page.locator("#chat").get_by_label("Edit").first.click()
    box = here.page.locator("#chat textarea")
    box.fill(QUESTION)
    here.page.locator("#chat").get_by_label("Submit").click()
    expect(here.questions).to_have_text([QUESTION])
    expect(here.answers).to_have_text([ANSWER])
    here.page.reload()
    expect(here.questions).to_have_text([QUESTION])


def test_thumbs_are_kept_and_exported(stack, tab):
    here = tab(stack)
    here.ask(QUESTION)
    here.done(1)
    here.page.locator("#chat").get_by_label("Like", exact=True).click()
    liked = here.page.locator("#chat").get_by_label("Liked", exact=True)
    expect(liked).to_be_visible()
    here.page.reload()
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
    expect(here.page.locator("#card")).to_contain_text("make local-train")


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
    here.page.reload()
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
    here.page.reload()
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
        here.page.reload()
        expect(here.questions).to_have_text([QUESTION])
