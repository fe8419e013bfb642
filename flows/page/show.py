"""Views on the page: which part shows what of a View (conversation.py), and the list of conversations.

show = Show(parts, history, comparing=True)
update = await show.everything(view, request, pages=1, search="")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr

from flows.history import History, Unavailable
from flows.page.conversation import View, base_bubbles, bubbles, compared, system_of, thumbs, undecided
from flows.page.guard import LOCAL
from flows.page.layout import Parts

#: Conversations of the list that are shown at once.
PAGE = 50
NEW = "New chat"
NOTHING = '<p class="exports" role="status">Nothing found.</p>'
#: New values by part, as Gradio takes them.
Update = dict[Any, Any]


class Show:
    """Puts views on the page's parts."""

    def __init__(self, parts: Parts, history: History, comparing: bool) -> None:
        self._parts = parts
        self._history = history
        self._comparing = comparing
        """Whether there is a base model to compare with."""

    async def pictures(
        self, views: AsyncGenerator[View], request: gr.Request, pages: int, search: str, sent: str = ""
    ) -> AsyncGenerator[Update]:
        """An answer while it comes: all of the page at its beginning and end, between them what has come of it.

        sent: the message, which the browser took out of its box; it goes back there if it is not taken.
        """
        parts, first, busy = self._parts, True, False
        update: Update
        # (whoever ends this ends the views, and with them the answer, at once)
        async with aclosing(views):
            async for view in views:
                busy = view.busy
                if not busy:
                    update = await self.everything(view, request, pages, search)
                    if first and sent:
                        update[parts.message] = gr.Textbox(value=sent, submit_btn=True, stop_btn=False)
                    yield update
                    continue
                # until the first word, the browser gets no more to do than it must: that is what a person waits for
                update = {parts.chat: bubbles(view)}
                if view.partial_base is not None:
                    update[parts.base] = base_bubbles(view)
                if first:
                    update[parts.message] = gr.Textbox(submit_btn=False, stop_btn=True)
                    update |= {
                        # (the address names it from now on: a reload before the first word finds it)
                        parts.conversation: view.conversation,
                        parts.alert: "",
                        parts.again: gr.Button(visible=False),
                        parts.choice: gr.Row(visible=False),
                    }
                    first = False
                yield update
        if busy:
            # it was left, and Gradio sends what it was given last once more: let that be nothing
            yield {parts.alert: gr.skip()}

    async def everything(self, view: View, request: gr.Request, pages: int, search: str) -> Update:
        """The whole page; the list of conversations only where it has changed."""
        parts = self._parts
        if view.unread:
            return {parts.alert: warning(view.alert)}
        # two answers are read side by side, whatever is ticked since: after a reload nothing is
        beside = {parts.base_column: gr.Column(visible=True)} if compared(view.messages) else {}
        if undecided(view.messages) and self._comparing:
            beside[parts.compare] = True
        return {
            **beside,
            parts.conversation: view.conversation,
            parts.chat: gr.Chatbot(bubbles(view), feedback_value=thumbs(view.messages)),
            parts.base: base_bubbles(view),
            parts.choice: gr.Row(visible=undecided(view.messages) and not view.busy),
            parts.alert: warning(view.alert),
            parts.again: gr.Button(visible=view.again),
            parts.message: gr.Textbox(submit_btn=not view.busy, stop_btn=view.busy),
            **(await self.listing(view.conversation, request, pages, search) if view.listed else {}),
        }

    async def another(self, view: View, request: gr.Request, pages: int, search: str) -> Update:
        """The whole page, which shows another conversation from now on: its system prompt too."""
        update = await self.everything(view.change(listed=True), request, pages, search)
        return update if view.unread else {**update, self._parts.system: system_of(view.messages)}

    def thumbs(self, view: View) -> Update:
        """The thumbs alone: an answer may be coming meanwhile."""
        if view.alert:
            return {self._parts.alert: warning(view.alert)}
        return {self._parts.chat: gr.Chatbot(feedback_value=thumbs(view.messages)), self._parts.alert: ""}

    async def listing(self, conversation: str, request: gr.Request, pages: int, search: str) -> Update:
        """The list of conversations, the open one marked."""
        parts, wanted = self._parts, PAGE * pages
        try:
            found = await asyncio.to_thread(
                self._history.list, user(request), limit=wanted + 1, search=(search or "").strip()
            )
        except Unavailable as error:
            return {parts.alert: warning(f"The list of conversations cannot be read now: {error}")}
        titles = {summary.id: summary.title or NEW for summary in found[:wanted]}
        return {
            parts.listing: gr.Radio(
                [(title, name) for name, title in titles.items()],
                value=conversation if conversation in titles else None,
            ),
            parts.more: gr.Button(visible=len(found) > wanted),
            parts.nothing: NOTHING if search and not found else "",
            # (what was searched for may leave the open one out: its title stays)
            **({parts.title: titles.get(conversation, "")} if conversation in titles or not conversation else {}),
        }


def user(request: gr.Request) -> str:
    """Whose conversations these are."""
    return request.username or LOCAL


def warning(text: str) -> str:
    """What went wrong, as the page says it; read aloud by screen readers."""
    return f'<p role="alert">{escape(text)}</p>' if text else ""
