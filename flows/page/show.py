"""Views on the page: which part shows what of a View (conversation.py), and the list of conversations.

show = Show(parts, history)
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
from flows.page.conversation import View, alternative, base_bubbles, bubbles, thumbs
from flows.page.guard import LOCAL
from flows.page.layout import Parts

#: Conversations of the list that are shown at once.
PAGE = 50
NEW = "New chat"
#: New values by part, as Gradio takes them.
Update = dict[Any, Any]


class Show:
    """Puts views on the page's parts."""

    def __init__(self, parts: Parts, history: History) -> None:
        self._parts = parts
        self._history = history

    async def pictures(
        self, views: AsyncGenerator[View], request: gr.Request, pages: int, search: str, clear: bool = False
    ) -> AsyncGenerator[Update]:
        """An answer while it comes: all of the page at its beginning and end, between them what has come of it.

        clear: the box is emptied, for the message in it has been taken.
        """
        parts, first, begun, told, busy = self._parts, True, False, False, False
        # (whoever ends this ends the views, and with them the answer, at once)
        async with aclosing(views):
            async for view in views:
                busy = view.busy
                if not busy:
                    yield await self.everything(view, request, pages, search)
                    continue
                # until the first word, the browser gets no more to do than it must: that is what a person waits for
                update: Update = {parts.chat: bubbles(view)}
                if view.partial_base is not None:
                    update[parts.base] = base_bubbles(view)
                if first:
                    taken = {"value": ""} if clear else {}
                    update[parts.message] = gr.Textbox(submit_btn=False, stop_btn=True, **taken)
                    update |= {
                        parts.alert: "",
                        parts.again: gr.Button(visible=False),
                        parts.choice: gr.Row(visible=False),
                    }
                    first = False
                elif begun:
                    update[parts.conversation], begun = view.conversation, False
                elif view.partial and not told:
                    begun = told = True
                yield update
        if busy:
            # it was left, and Gradio sends what it was given last once more: let that be nothing
            yield {parts.alert: gr.skip()}

    async def everything(self, view: View, request: gr.Request, pages: int, search: str) -> Update:
        """The whole page; the list of conversations only where it has changed."""
        parts = self._parts
        if view.unread:
            return {parts.alert: warning(view.alert)}
        last = view.messages[-1] if view.messages else None
        undecided = last is not None and alternative(last) is not None and not last.details.get("preferred")
        return {
            parts.conversation: view.conversation,
            parts.chat: gr.Chatbot(bubbles(view), feedback_value=thumbs(view.messages)),
            parts.base: base_bubbles(view),
            parts.choice: gr.Row(visible=undecided and not view.busy),
            parts.alert: warning(view.alert),
            parts.again: gr.Button(visible=view.again),
            parts.message: gr.Textbox(submit_btn=not view.busy, stop_btn=view.busy),
            **(await self.listing(view.conversation, request, pages, search) if view.listed else {}),
        }

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
            parts.title: titles.get(conversation, ""),
        }


def user(request: gr.Request) -> str:
    """Whose conversations these are."""
    return request.username or LOCAL


def warning(text: str) -> str:
    """What went wrong, as the page says it; read aloud by screen readers."""
    return f'<p role="alert">{escape(text)}</p>' if text else ""
