"""The real page, the real flow, the real scoring server over a trained model, and tabs of a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.page.stack import Stack
from tests.flows.parts import flow, page
from tests.serving.models import make_random_model
from tests.serving.server import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.browser import Tab


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # (the tests' modules skip themselves where playwright is not installed)
    from tests.e2e.browser import chromium

    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def endless(tmp_path_factory) -> Iterator[Server]:
    """A scoring server whose answers go on until they are stopped: for many seconds, whatever the machine."""
    folder = tmp_path_factory.mktemp("endless")
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    with serving(make_random_model(folder / "model", **shape), folder) as server:
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
    from tests.e2e.browser import Tab

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
