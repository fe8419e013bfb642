"""A conversation as it goes on: asked, streamed, stopped, tried again, edited, rated, compared; kept at every step.

    talk = Talk(history, flow)
    async for view in talk.ask("local", "tab-1", "", "Who founded Microsoft?", Options()):
        print(view.partial)

Knows nothing of the page: each step is a View (conversation.py). The store is asked in threads, for it may wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from flows.history import History, Message, NotFound, Unavailable, new_id
from flows.page.conversation import (
    BASE,
    TUNED,
    Options,
    Refused,
    View,
    checked,
    preferred,
    question_before,
    shown,
    swapped,
    system_of,
    turns,
)
from flows.page.flow_client import Flow, FlowError, Question
from flows.page.turn import Stream, Turn

#: Seconds between two pictures of an answer that is coming; the first piece is shown at once.
PACE = 0.05
#: Seconds that an answer which is left has to be kept.
LEAVING = 5.0
GONE = "This conversation is no longer there; it was deleted, perhaps in another tab."
log = logging.getLogger(__name__)


class Gone(Refused):
    """The conversation is no longer there."""


class Talk:
    """What every open page shares: the store, the flow, and who is waiting for an answer."""

    def __init__(self, history: History, flow: Flow) -> None:
        self.history = history
        self._flow = flow
        self._turns: dict[str, Turn] = {}

    async def open(self, user: str, conversation: str) -> View:
        """The conversation as it is kept; an empty page for an empty id."""
        if not conversation:
            return View()
        try:
            return View(conversation, await self._do(self.history.open, user, conversation))
        except Gone as gone:
            return View(alert=str(gone), listed=True)
        except Refused as refused:
            return View(conversation, alert=str(refused), unread=True)

    async def ask(self, user: str, tab: str, conversation: str, text: str, options: Options) -> AsyncGenerator[View]:
        """Keep the question and stream its answer; a first question begins a conversation."""
        async with (
            self._turn(tab) as turn,
            contextlib.aclosing(self._asked(user, turn, conversation, text, options)) as steps,
        ):
            async for step in steps:
                yield step

    async def retry(self, user: str, tab: str, conversation: str, index: int, options: Options) -> AsyncGenerator[View]:
        """Ask the question at or before a place on the page again; its answer takes the place of what followed."""
        async with self._turn(tab) as turn:
            view = await self.open(user, conversation)
            try:
                question, follower = question_before(view.messages, index)
            except Refused as refused:
                yield view.change(alert=view.alert or str(refused))
                return
            cut = view.messages.index(question) + 1
            answering = self._answer(user, turn, view, options, cut=cut, place=follower.id if follower else "")
            async with contextlib.aclosing(answering) as steps:
                async for step in steps:
                    yield step

    async def edit(
        self, user: str, tab: str, conversation: str, index: int, text: str, options: Options
    ) -> AsyncGenerator[View]:
        """Ask the question at a place on the page in other words, in place of it and of all after it."""
        async with self._turn(tab) as turn:
            view = await self.open(user, conversation)
            try:
                edited = Message(new_id(), "user", checked(text), time.time())
                question, _ = question_before(view.messages, index)
            except Refused as refused:
                yield view.change(alert=view.alert or str(refused))
                return
            cut = view.messages.index(question)
            answering = self._answer(user, turn, view, options, [edited], cut=cut, place=question.id)
            async with contextlib.aclosing(answering) as steps:
                async for step in steps:
                    yield step

    @contextlib.asynccontextmanager
    async def _turn(self, tab: str) -> AsyncIterator[Turn]:
        """From a question to the end of its answer; what the tab was waiting for until now is left."""
        await self.leave(tab)
        self._turns[tab] = turn = Turn()
        try:
            yield turn
        finally:
            if self._turns.get(tab) is turn:
                del self._turns[tab]
            turn.ended.set()

    async def _asked(
        self, user: str, turn: Turn, conversation: str, text: str, options: Options
    ) -> AsyncGenerator[View]:
        view = await self.open(user, conversation)
        try:
            question = Message(new_id(), "user", checked(text), time.time())
        except Refused as refused:
            view = view.change(alert=str(refused))
        if view.alert:
            yield view
            return
        system = (options.system or "").strip() if not view.conversation else ""
        new = [*([Message(new_id(), "system", system, time.time())] if system else []), question]
        async with contextlib.aclosing(self._answer(user, turn, view, options, new)) as steps:
            async for step in steps:
                yield step

    def stop(self, tab: str) -> None:
        """End the answer that a tab is waiting for; what has come of it is kept."""
        if turn := self._turns.get(tab):
            turn.stop()

    async def leave(self, tab: str) -> None:
        """Break off the answer that a tab is waiting for, for it shows something else from now on.

        What has come of it is kept, and nothing more of it is shown: it has ended when this returns.
        """
        if turn := self._turns.get(tab):
            turn.left = True
            turn.stop()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(turn.ended.wait(), LEAVING)

    async def rate(self, user: str, conversation: str, index: int, rating: int) -> View:
        """Set the thumb of the answer at a place on the page."""
        view = await self.open(user, conversation)
        try:
            visible = shown(view.messages)
            if not 0 <= index < len(visible):
                raise Refused("This answer is not whole yet; rate it when it is.")
            if swapped(visible[index]):
                raise Refused("The base model's answer was the better one here, and the thumb is for that one.")
            await self._do(self.history.rate, user, conversation, visible[index].id, rating)
        except Refused as refused:
            return view.change(alert=view.alert or str(refused))
        return await self.open(user, conversation)

    async def prefer(self, user: str, conversation: str, base: bool) -> View:
        """Let the conversation go on with the better one of the last two answers; the other stays beside it."""
        view = await self.open(user, conversation)
        try:
            last, chosen = preferred(view.messages, base)
            await self._do(self.history.truncate, user, conversation, last.id, chosen)
        except Refused as refused:
            return view.change(alert=view.alert or str(refused))
        return await self.open(user, conversation)

    async def _answer(
        self,
        user: str,
        turn: Turn,
        view: View,
        options: Options,
        new: Sequence[Message] = (),
        *,
        cut: int | None = None,
        place: str = "",
    ) -> AsyncGenerator[View]:
        """Stream the answer to the last question, and keep it, however it ends.

        Args:
            new: messages that are kept first.
            cut: how many of the view's messages stay; what follows them goes once there is something in its place.
            place: the first message that goes, by its id.
        """
        unanswered, view = view, view.change(messages=[*view.messages[:cut], *new])
        *before, question = view.messages
        system = system_of(before) if options.system is None else options.system.strip()
        asked = Question(
            question.content, turns(before), system, TUNED, float(options.temperature), int(options.max_tokens)
        )
        streams = {name: Stream() for name in ((TUNED, BASE) if options.compare else (TUNED,))}
        changed, stopped = turn.changed, turn.stopped
        tasks = [
            asyncio.create_task(self._read(replace(asked, model=name), stream, changed))
            for name, stream in streams.items()
        ]
        tuned, base = streams[TUNED], streams.get(BASE)
        view = view.change(busy=True, partial="", partial_base="" if base else None)
        kept: Message | None = None
        begun = False
        try:
            try:
                # the store works while the flow does: nobody waits for both
                view = view.change(conversation=await self._begin(user, view.conversation, new, place))
                begun, place = True, "" if new else place
            except Refused as refused:
                yield unanswered.change(alert=str(refused))
                return
            if not turn.left:
                yield view
            while not stopped.is_set() and not all(stream.ended for stream in streams.values()):
                await changed.wait()
                changed.clear()
                if turn.left:
                    break
                yield view.change(partial=tuned.text, partial_base=base.text if base else None)
                if not all(stream.ended for stream in streams.values()):
                    # (a stop need not wait for the next picture)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stopped.wait(), PACE)
        finally:
            for task in tasks:
                task.cancel()
            details = {"model": TUNED, "temperature": asked.temperature, "max_tokens": asked.max_tokens}
            details |= {"system": system} if system != system_of(view.messages) else {}
            details |= tuned.ending()
            if base and base.text:
                details["alternatives"] = [{"model": BASE, "content": base.text} | base.ending()]
            if tuned.text:
                kept = Message(new_id(), "assistant", tuned.text, time.time(), details=details)
            failed = await asyncio.shield(self._keep(user, view.conversation, kept, place)) if begun else ""
        if turn.left:
            return
        view = view.change(busy=False, partial=None, partial_base=None, listed=True)
        error = failed or tuned.error or (f"The base model: {base.error}" if base and base.error else "")
        if not error and not kept and not stopped.is_set():
            error = "The model answered with nothing. Ask in other words, or try again."
        # (no try makes good what is refused for good)
        again = (bool(error) or not kept) and not any(stream.hopeless for stream in streams.values())
        # (where nothing came, what was to go has stayed)
        messages = [*view.messages, kept] if kept else unanswered.messages if place else view.messages
        yield view.change(messages=messages, alert=error, again=again)

    async def _begin(self, user: str, conversation: str, new: Sequence[Message], place: str) -> str:
        """Keep new messages, in a new conversation where there is none yet; return its id."""
        if not conversation:
            return await self._do(self.history.start, user, "", new)
        if new and place:
            await self._do(self.history.truncate, user, conversation, place, *new)
        elif new:
            await self._do(self.history.append, user, conversation, *new)
        return conversation

    async def _keep(self, user: str, conversation: str, message: Message | None, place: str) -> str:
        """Keep an answer; what kept it from being kept is said, for the answer itself is on the page already."""
        try:
            if message and place:
                await self._do(self.history.truncate, user, conversation, place, message)
            elif message:
                await self._do(self.history.append, user, conversation, message)
        except Refused as refused:
            return str(refused)
        return ""

    async def _read(self, question: Question, stream: Stream, changed: asyncio.Event) -> None:
        try:
            async for piece in self._flow.ask(question):
                stream.text += piece
                changed.set()
        except FlowError as error:
            stream.error, stream.hopeless = str(error), not error.passes
        except Exception:
            # half an answer must not pass for a whole one
            log.exception("an answer could not be read")
            stream.error = "The page failed while it read the answer; its log says how. Try again."
        finally:
            stream.ended = True
            changed.set()

    async def _do(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """One step of the store, in a thread; what goes wrong is a Refused."""
        try:
            return await asyncio.to_thread(action, *arguments)
        except NotFound:
            raise Gone(GONE) from None
        except (Unavailable, ValueError) as error:
            raise Refused(f"The conversation cannot be kept or read now: {error}") from None
