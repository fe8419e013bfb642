"""What happens on the page: each event asks Talk (talk.py), and each View that comes back is put on the page (show.py).

connect(blocks, parts, talk, flow, settings)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from flows.history import NotFound, Unavailable
from flows.page import model_card
from flows.page.conversation import TOKENS, Options, View
from flows.page.flow_client import Flow
from flows.page.layout import Parts
from flows.page.settings import Settings
from flows.page.show import Show, Update, user, warning
from flows.page.talk import GONE, Talk

RATINGS = {True: 1, False: -1}


def connect(blocks: gr.Blocks, parts: Parts, talk: Talk, flow: Flow, settings: Settings) -> None:
    """Give every part of the page its events."""
    events = Events(parts, talk, flow, settings)
    shown = [
        parts.conversation, parts.chat, parts.base, parts.choice, parts.alert, parts.again, parts.message,
        parts.listing, parts.more, parts.title, parts.system, parts.card, parts.base_column, parts.compare,
        parts.nothing, parts.tokens,
    ]  # fmt: skip
    place = [parts.conversation, parts.pages, parts.search]
    # nobody else calls these; no wheel is shown over what is being read
    common = {"outputs": shown, "show_progress": "hidden", "api_visibility": "private"}
    asking = {**common, "concurrency_limit": None, "trigger_mode": "once"}
    # (the browser empties the box by itself, so that letters typed on are not lost)
    hidden = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    parts.message.submit(None, parts.message, parts.sent, js="(text) => phikitSend(text)", **hidden).then(
        events.ask, [parts.sent, *place, *parts.options], **asking
    )
    parts.chat.example_select(events.example, [*place, *parts.options], **asking)
    parts.chat.retry(events.retry, [*place, *parts.options], **asking)
    parts.again.click(events.again, [*place, *parts.options], **asking)
    parts.chat.edit(events.edit, [*place, *parts.options], **asking)
    # (these leave an answer that is coming; Gradio's `cancels` reach the server after what they make way for)
    parts.listing.input(events.open, [parts.listing, parts.pages, parts.search], **common)
    parts.new.click(events.new, [parts.pages, parts.search], **common)
    parts.delete.click(events.delete, place, **common)
    parts.message.stop(events.stop, queue=False, show_progress="hidden", api_visibility="private")
    quick = {**common, "queue": False}
    parts.search.change(events.search, place, **{**quick, "trigger_mode": "always_last"})
    parts.more.click(events.more, place, **{**quick, "outputs": [*shown, parts.pages]})
    parts.title.submit(events.rename, [parts.title, *place], **quick)
    parts.chat.like(events.rate, parts.conversation, **quick)
    parts.better_tuned.click(events.prefer_tuned, place, **quick)
    parts.better_base.click(events.prefer_base, place, **quick)
    parts.compare.change(lambda on: gr.Column(visible=on), parts.compare, parts.base_column, **hidden)
    parts.formatted.change(
        lambda on: [gr.Chatbot(render_markdown=on)] * 2, parts.formatted, [parts.chat, parts.base], **hidden
    )
    # these stay in the browser
    parts.theme.click(None, js="() => phikitTheme('toggle')")
    parts.conversation.change(None, parts.conversation, js="(id) => phikitAddress(id)")
    blocks.load(None, js="() => { phikitTheme(); phikitPhone(); }")
    blocks.load(events.load, [parts.pages], **quick)
    # (by itself: the conversation does not wait for a server that is slow to say what it serves)
    blocks.load(events.about, **quick)
    blocks.queue(default_concurrency_limit=None, api_open=False)


class Events:
    """The page's events over what all of them need."""

    def __init__(self, parts: Parts, talk: Talk, flow: Flow, settings: Settings) -> None:
        self._parts = parts
        self._talk = talk
        self._flow = flow
        self._show = Show(parts, talk.history, settings.compare)
        self._settings = settings

    # --- answers, as they come ---

    async def ask(
        self,
        text: str,
        conversation: str,
        pages: int,
        search: str,
        system: str,
        temperature: float,
        tokens: float,
        compare: bool,
        request: gr.Request,
    ) -> AsyncGenerator[Update]:
        """A message was sent."""
        views = self._talk.ask(
            user(request), tab(request), conversation, text or "", options(system, temperature, tokens, compare)
        )
        async with aclosing(self._show.pictures(views, request, pages, search, text or "")) as updates:
            async for update in updates:
                yield update

    async def example(
        self,
        conversation: str,
        pages: int,
        search: str,
        system: str,
        temperature: float,
        tokens: float,
        compare: bool,
        request: gr.Request,
        chosen: gr.SelectData,
    ) -> AsyncGenerator[Update]:
        """An example was chosen on an empty page."""
        text = chosen.value["text"]
        views = self._talk.ask(
            user(request), tab(request), conversation, text, options(system, temperature, tokens, compare)
        )
        async with aclosing(self._show.pictures(views, request, pages, search)) as updates:
            async for update in updates:
                yield update

    async def retry(
        self,
        conversation: str,
        pages: int,
        search: str,
        system: str,
        temperature: float,
        tokens: float,
        compare: bool,
        request: gr.Request,
        place: gr.RetryData,
    ) -> AsyncGenerator[Update]:
        """Another answer was asked for."""
        views = self._talk.retry(
            user(request), tab(request), conversation, place_of(place), options(system, temperature, tokens, compare)
        )
        async with aclosing(self._show.pictures(views, request, pages, search)) as updates:
            async for update in updates:
                yield update

    async def again(
        self,
        conversation: str,
        pages: int,
        search: str,
        system: str,
        temperature: float,
        tokens: float,
        compare: bool,
        request: gr.Request,
    ) -> AsyncGenerator[Update]:
        """The last question, once more: its answer has failed."""
        last = 2**31
        views = self._talk.retry(
            user(request), tab(request), conversation, last, options(system, temperature, tokens, compare)
        )
        async with aclosing(self._show.pictures(views, request, pages, search)) as updates:
            async for update in updates:
                yield update

    async def edit(
        self,
        conversation: str,
        pages: int,
        search: str,
        system: str,
        temperature: float,
        tokens: float,
        compare: bool,
        request: gr.Request,
        change: gr.EditData,
    ) -> AsyncGenerator[Update]:
        """A question was put in other words."""
        views = self._talk.edit(
            user(request),
            tab(request),
            conversation,
            place_of(change),
            change.value,
            options(system, temperature, tokens, compare),
        )
        async with aclosing(self._show.pictures(views, request, pages, search)) as updates:
            async for update in updates:
                yield update

    def stop(self, request: gr.Request) -> None:
        """Enough of this answer."""
        self._talk.stop(tab(request))

    # --- conversations ---

    async def load(self, pages: int, request: gr.Request) -> Update:
        """The page was opened, perhaps with a conversation in its address."""
        view = await self._talk.open(user(request), request.query_params.get("conversation", ""))
        return await self._show.another(view, request, pages, "")

    async def about(self) -> Update:
        """The card of the model that answers, and the longest answer that it has room for.

        The newest run may be another by now, and the server may not have it.
        """
        told = await self._flow.about()
        card, newest = await asyncio.to_thread(model_card.served, self._settings.run, str(told.get("run") or ""))
        context = told.get("context")
        most = min(TOKENS[1], context - 1) if isinstance(context, int) and context > 1 else TOKENS[1]
        return {
            self._parts.card: model_card.as_html(card, newest),
            self._parts.tokens: gr.Slider(maximum=most),
        }

    async def open(self, conversation: str, pages: int, search: str, request: gr.Request) -> Update:
        """A conversation was chosen from the list."""
        await self._talk.leave(tab(request))
        view = await self._talk.open(user(request), conversation)
        return await self._show.another(view, request, pages, search)

    async def new(self, pages: int, search: str, request: gr.Request) -> Update:
        """An empty page was asked for."""
        await self._talk.leave(tab(request))
        return await self._show.another(View(), request, pages, search)

    async def delete(self, conversation: str, pages: int, search: str, request: gr.Request) -> Update:
        """This conversation is to go; the browser has asked whether it really is (page.js)."""
        if not conversation:
            return {self._parts.alert: warning("Open a conversation to delete it.")}
        await self._talk.leave(tab(request))
        alert = await self._store(self._talk.history.delete, user(request), conversation)
        if alert:
            return {self._parts.alert: warning(alert)}
        return await self._show.another(View(), request, pages, search)

    async def rename(self, title: str, conversation: str, pages: int, search: str, request: gr.Request) -> Update:
        """This conversation has another title."""
        if not conversation or not title.strip():
            return {self._parts.alert: warning("Open a conversation and give it a title.")}
        alert = await self._store(self._talk.history.rename, user(request), conversation, title)
        return {self._parts.alert: warning(alert), **await self._show.listing(conversation, request, pages, search)}

    async def search(self, conversation: str, pages: int, search: str, request: gr.Request) -> Update:
        """Other words were searched for."""
        return await self._show.listing(conversation, request, pages, search)

    async def more(self, conversation: str, pages: int, search: str, request: gr.Request) -> Update:
        """More of the list."""
        return {
            self._parts.pages: pages + 1,
            **await self._show.listing(conversation, request, pages + 1, search),
        }

    async def rate(self, conversation: str, request: gr.Request, thumb: gr.LikeData) -> Update:
        """A thumb was set, or taken back."""
        rating = RATINGS.get(thumb.liked, 0) if isinstance(thumb.liked, bool) else 0
        view = await self._talk.rate(user(request), conversation, place_of(thumb), rating)
        return self._show.thumbs(view)

    async def prefer_tuned(self, conversation: str, pages: int, search: str, request: gr.Request) -> Update:
        """The left one of two answers was the better one."""
        view = await self._talk.prefer(user(request), conversation, base=False)
        return await self._show.everything(view, request, pages, search)

    async def prefer_base(self, conversation: str, pages: int, search: str, request: gr.Request) -> Update:
        """The right one was."""
        view = await self._talk.prefer(user(request), conversation, base=True)
        return await self._show.everything(view, request, pages, search)

    async def _store(self, action: Any, *arguments: Any) -> str:
        """One step of the store; what went wrong, in words."""
        try:
            await asyncio.to_thread(action, *arguments)
        except NotFound:
            return GONE
        except (Unavailable, ValueError) as error:
            return str(error)
        return ""


def options(system: str | None, temperature: float, tokens: float, compare: bool) -> Options:
    """How to answer, of what the settings below the conversation hold (an untouched box holds None)."""
    return Options(system, float(temperature), int(tokens), bool(compare))


def tab(request: gr.Request) -> str:
    """Which open page this is."""
    return request.session_hash or ""


def place_of(event: Any) -> int:
    """The message's place on the page."""
    return event.index[0] if isinstance(event.index, list | tuple) else int(event.index)
