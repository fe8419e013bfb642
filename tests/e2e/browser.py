"""Debian's Chromium, driven by Playwright's core: no browser is ever downloaded, and what one asks for is recorded."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.flows.parts import NO_BROWSER, absent

#: A folder that pictures of the tests are kept in; unset: each test's own.
PICTURES = "PHIKIT_TEST_PICTURES"
#: Milliseconds; a loaded machine must not fail a test.
PATIENCE = 60_000
#: Pictures of the browser within which what was unfolded has taken its values; no person writes that fast.
FRAMES = 10
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@contextmanager
def chromium(*hosts: str) -> Iterator[Browser]:
    """The browser of this machine; without one the test is skipped, in CI it fails.

    Args:
        hosts: what it may reach besides this machine.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        absent(f"{NO_BROWSER}: install it (Debian: apt-get install chromium)")
    # whatever a page asks for, no name but this machine's leads anywhere
    reachable = "".join(f", EXCLUDE {host}" for host in ("127.0.0.1", "localhost", *hosts))
    options = [f"--host-resolver-rules=MAP * ~NOTFOUND{reachable}", "--disable-gpu"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


class Tab:
    """The chat page in a tab of its own."""

    def __init__(self, browser: Browser, address: str, folder: Path, **options: object) -> None:
        self._context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        self._context.grant_permissions(["clipboard-read", "clipboard-write"])
        self._context.set_default_timeout(PATIENCE)
        self._folder = Path(os.environ.get(PICTURES) or folder)
        self.page: Page = self._context.new_page()
        self.asked: list[str] = []
        self.errors: list[str] = []
        self._context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.address = address
        self.open()

    def open(self, address: str = "") -> None:
        """Go to the page, or to a place in it, and wait until it can be used."""
        self.page.goto(address or self.address)
        self._usable()

    def reload(self) -> None:
        """Load the page again, and wait until it can be used."""
        self.page.reload()
        self._usable()

    def _usable(self) -> None:
        expect(self.message).to_be_editable()
        self.page.wait_for_function("!document.querySelector('.loading')")

    @property
    def message(self) -> Locator:
        return self.page.locator("#message textarea")

    @property
    def questions(self) -> Locator:
        return self.page.locator("#chat [data-testid=user]")

    @property
    def answers(self) -> Locator:
        return self.page.locator("#chat [data-testid=bot]")

    @property
    def base_answers(self) -> Locator:
        return self.page.locator("#base [data-testid=bot]")

    @property
    def alert(self) -> Locator:
        return self.page.locator("#alert [role=alert]")

    @property
    def stop(self) -> Locator:
        return self.page.locator("#message button.stop-button")

    def conversation(self, title: str) -> Locator:
        """A conversation of the list, by its title."""
        return self.page.locator("#listing label", has_text=re.compile(f"^\\s*{re.escape(title)}\\s*$"))

    def ask(self, text: str) -> None:
        """Write a message and press Enter, as a person does."""
        self.message.fill(text)
        self.message.press("Enter")

    def rename(self, title: str) -> None:
        """Give the open conversation another title."""
        self._unfold("This conversation")
        box = self.page.locator("#title input, #title textarea")
        box.fill(title)
        box.press("Enter")

    def begun(self, answers: int) -> None:
        """Wait until there are so many answers and the last has words."""
        expect(self.answers).to_have_count(answers)
        expect(self.answers.last).not_to_have_text(re.compile(r"^\s*$|^an older answer$"))

    def done(self, answers: int) -> None:
        """Wait until there are so many answers and the last is whole."""
        # (the button to stop comes with the first picture of an answer, its first words with the second)
        self.begun(answers)
        expect(self.stop).to_have_count(0)

    def outdate(self) -> None:
        """Write over the last answer, so that `done` waits for another in its place."""
        self.answers.last.evaluate(
            """(answer) => {
                const texts = document.createTreeWalker(answer, NodeFilter.SHOW_TEXT);
                while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.trim() && 'an older answer';
            }"""
        )

    def set(self, name: str, value: float) -> None:
        """Give a setting below the conversation a number."""
        self.settings()
        box = self.page.locator(f"#{name} input[type=number]")
        box.fill(str(value))
        box.press("Tab")

    def settings(self) -> None:
        """Open the settings below the conversation."""
        if not self.page.locator("#system textarea").is_visible():
            self._unfold("How to answer")

    def _unfold(self, name: str) -> None:
        """Open a folded part; Gradio writes its fields' values once more in the frames after: wait for these."""
        self.page.get_by_role("button", name=name).click()
        self.page.evaluate(
            f"async () => {{ for (let i = 0; i < {FRAMES}; i++) await new Promise(requestAnimationFrame); }}"
        )

    def picture(self, name: str, folder: Path | None = None) -> None:
        """Keep a picture of what is shown."""
        target = folder or self._folder
        target.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=target / f"{name}.png")

    def away(self) -> list[str]:
        """What was asked of other hosts."""
        own = urlsplit(self.address).netloc
        return [
            url for url in self.asked if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != own
        ]

    def close(self) -> None:
        self._context.close()
