"""The page's client of the flow against flows in trouble, and what a conversation keeps of such answers."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.history import History
from flows.history.sqlite import SqliteHistory
from flows.page.conversation import Options, View
from flows.page.flow_client import Flow, FlowError, Question
from flows.page.talk import Talk
from tests.flows.bad_flow import answering, response, stream

LOCKED = "The conversation cannot be kept or read now: "


def event(piece: str | dict) -> bytes:
    return f"data: {json.dumps({'answer': piece})}\n\n".encode()


def ask(uri: str) -> tuple[str, str]:
    """What came, and what was said when it ended badly."""

    async def go() -> tuple[str, str]:
        came = ""
        async with Flow(uri) as flow:
            try:
                async for piece in flow.ask(Question("Who?")):
                    came += piece
            except FlowError as error:
                return came, str(error)
        return came, ""

    return asyncio.run(go())


def test_pieces_come_together_wherever_they_were_cut():
    whole = event("Bill") + event(" é\u2028שלום 👩‍👩‍👧") + event("")
    with answering(stream(*(whole[place : place + 1] for place in range(len(whole))))) as uri:
        assert ask(uri) == ("Bill é\u2028שלום 👩‍👩‍👧", "")


def test_an_answer_that_is_not_streamed_is_taken_whole():
    with answering(response("200 OK", b'{"answer": "Bill."}')) as uri:
        assert ask(uri) == ("Bill.", "")


@pytest.mark.parametrize(
    ("sent", "came", "said"),
    [
        (stream(event("Bill"), end=False), "Bill", "broke off"),
        (stream(event("Bill"), b'data: {"error": {"message": "the endpoint went away"}}\n\n'), "Bill", "went away"),
        # what the chat flow says last where its endpoint breaks off
        (stream(event("Bill"), event({"error": {"message": "it broke off"}})), "Bill", "it broke off"),
        (stream(b"data: what is this\n\n"), "", "PHIKIT_FLOW_URI"),
        (b"", "", "broke off"),
        (b"SSH-2.0-OpenSSH\r\n", "", "broke off"),
        (response("200 OK", b"<html>hello</html>", "text/html"), "", "PHIKIT_FLOW_URI"),
        (response("502 Bad Gateway", b"<html>nginx</html>", "text/html"), "", "status 502"),
        (
            response("400 Bad Request", b'{"error": {"code": "UserError", "message": "no base model"}}'),
            "",
            "no base model",
        ),
        (response("500 Oops", b'{"error": {"message": 5}}'), "", "status 500"),
        (response("500 Oops", b'["error"]'), "", "status 500"),
    ],
)
def test_what_goes_wrong_is_said_and_what_came_is_kept(sent, came, said):
    with answering(sent) as uri:
        found = ask(uri)
    assert found[0] == came
    assert said in found[1]
    assert "<" not in found[1] and "\n" not in found[1]


def test_promptflow_s_words_around_an_error_are_taken_off():
    body = {"error": {"message": "Execution failure in 'ask': (EndpointError) The model is busy; try again in 2 s."}}
    with answering(response("500 Internal Server Error", json.dumps(body).encode())) as uri:
        assert ask(uri) == ("", "The model is busy; try again in 2 s.")


def test_a_flow_that_is_not_there_is_named_without_what_may_be_secret():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    _, said = ask(f"http://ada:secret@127.0.0.1:{port}/score?key=secret")
    assert f"http://127.0.0.1:{port}" in said and "make flow-serve" in said
    assert "secret" not in said


def test_a_flow_of_compose_is_started_with_make_up():
    flow = Flow("http://flow:8080/score")
    assert flow.composed and not Flow("http://127.0.0.1:8080/score").composed
    _, said = ask("http://flow:1/score")
    assert "make up" in said and "make logs" in said and "flow-serve" not in said


@pytest.mark.parametrize(
    ("said", "again"),
    [("this conversation is too long for the model; begin a new one", False), ("it is overloaded; try again", True)],
)
def test_another_try_is_offered_only_where_it_may_help(history, said, again):
    body = {"error": {"code": "UserError", "message": said}}
    for sent in (response("400 Bad Request", json.dumps(body).encode()), stream(event("Bill"), event(body))):
        with answering(sent) as uri:
            *_, last = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options()))
        assert (last.alert, last.again) == (said, again)


def test_what_a_flow_says_of_its_model():
    async def about(uri: str) -> dict:
        async with Flow(uri) as flow:
            return await flow.about()

    with answering(response("200 OK", json.dumps({"answer": '{"run": "mine", "context": 512}'}).encode())) as uri:
        assert asyncio.run(about(uri)) == {"run": "mine", "context": 512}
    for other in (response("200 OK", b'{"answer": "Bill"}'), response("500 Oops", b"{}"), b"", b"SSH-2.0\r\n"):
        with answering(other) as uri:
            assert asyncio.run(about(uri)) == {}


def test_the_state_of_a_flow():
    async def state(uri: str) -> str:
        async with Flow(uri) as flow:
            return await flow.state()

    with answering(response("200 OK", b"{}")) as uri:
        assert asyncio.run(state(uri)) == ""
    with answering(response("500 Oops", b"{}")) as uri:
        assert "500" in asyncio.run(state(uri))
    with answering(b"") as uri:
        assert "does not answer" in asyncio.run(state(uri))


@pytest.fixture
def history(tmp_path) -> History:
    with_file = SqliteHistory(tmp_path / "conversations.db", patience=0.1)
    yield with_file
    with_file.close()


def talked(history: History, uri: str, go: Callable[[Talk], object]) -> list[View]:
    async def run() -> list[View]:
        async with Flow(uri) as flow:
            return [view async for view in go(Talk(history, flow))]

    return asyncio.run(run())


def test_half_an_answer_is_kept_as_one_that_was_stopped(history):
    with answering(stream(event("Bill"), end=False)) as uri:
        *_, last = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options("Be brief.", 0.5, 7)))
    assert "broke off" in last.alert and last.again and not last.busy
    system, question, answer = history.open("ada", last.conversation)
    assert (system.role, system.content) == ("system", "Be brief.")
    assert (question.content, answer.content) == ("Who?", "Bill")
    assert answer.details == {"model": "tuned", "temperature": 0.5, "max_tokens": 7, "stopped": True}


def test_a_stop_ends_an_answer_that_does_not_come(history):
    async def run(uri: str) -> list[View]:
        async with Flow(uri) as flow:
            talk, views = Talk(history, flow), []
            async for view in talk.ask("ada", "tab", "", "Who?", Options()):
                views.append(view)
                if view.partial == "Bill":
                    talk.stop("another tab")
                    talk.stop("tab")
            return views

    with answering(stream(event("Bill"), end=False), hold=True) as uri:
        views = asyncio.run(run(uri))
    assert views[-1].alert == "" and not views[-1].busy
    assert [message.content for message in views[-1].messages] == ["Who?", "Bill"]
    assert history.open("ada", views[-1].conversation)[-1].details["stopped"]


def test_an_answer_that_is_left_is_kept_and_shown_no_more(history):
    async def run(uri: str) -> tuple[list[View], int]:
        async with Flow(uri) as flow:
            talk, views = Talk(history, flow), []

            async def ask() -> None:
                async for view in talk.ask("ada", "tab", "", "Who?", Options()):
                    views.append(view)
                    if view.partial == "Bill":
                        begun.set()

            begun = asyncio.Event()
            asking = asyncio.create_task(ask())
            await begun.wait()
            await talk.leave("another tab")
            await talk.leave("tab")
            at_once = len(views)
            await asking
            return views, at_once

    with answering(stream(event("Bill"), end=False), hold=True) as uri:
        views, at_once = asyncio.run(run(uri))
    assert len(views) == at_once and views[-1].busy
    assert [message.content for message in history.open("ada", views[-1].conversation)] == ["Who?", "Bill"]


def test_a_second_question_of_a_tab_leaves_the_first(history):
    async def run(uri: str) -> list[View]:
        async with Flow(uri) as flow:
            talk = Talk(history, flow)
            first = talk.ask("ada", "tab", "", "Who?", Options())
            async for view in first:
                if view.partial == "Bill":
                    break
            rest = asyncio.create_task(anext(first, None))
            second = talk.ask("ada", "tab", view.conversation, "When?", Options())
            shown = await anext(second)
            assert await rest is None
            await second.aclose()
            return [*shown.messages]

    with answering(stream(event("Bill"), end=False), hold=True) as uri:
        messages = asyncio.run(run(uri))
    assert [message.content for message in messages] == ["Who?", "Bill", "When?"]


def test_a_page_that_was_closed_keeps_what_came(history):
    async def run(uri: str) -> str:
        async with Flow(uri) as flow:
            steps = Talk(history, flow).ask("ada", "tab", "", "Who?", Options())
            async for view in steps:
                if view.partial == "Bill":
                    break
            await steps.aclose()
            return view.conversation

    with answering(stream(event("Bill"), end=False), hold=True) as uri:
        conversation = asyncio.run(run(uri))
    assert [message.content for message in history.open("ada", conversation)] == ["Who?", "Bill"]


def test_a_retry_replaces_the_answer_and_an_edit_the_question(history):
    with answering(stream(event("Bill."))) as uri:
        *_, first = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options()))
    with answering(stream(event("Paul."))) as uri:
        *_, second = talked(history, uri, lambda talk: talk.retry("ada", "tab", first.conversation, 1, Options()))
        assert [message.content for message in second.messages] == ["Who?", "Paul."]
        *_, third = talked(
            history, uri, lambda talk: talk.edit("ada", "tab", first.conversation, 0, "Who else?", Options())
        )
    assert [message.content for message in history.open("ada", first.conversation)] == ["Who else?", "Paul."]
    assert third.conversation == first.conversation


def test_what_a_retry_gets_no_answer_for_stays(history):
    with answering(stream(event("Bill."))) as uri:
        *_, first = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options()))
    *_, second = talked(
        history, "http://127.0.0.1:1/score", lambda talk: talk.retry("ada", "tab", first.conversation, 1, Options())
    )
    assert "does not answer" in second.alert
    assert list(second.messages) == history.open("ada", first.conversation) == list(first.messages)


def test_an_edit_that_cannot_be_kept_takes_nothing_away(history, tmp_path):
    import sqlite3

    with answering(stream(event("Bill."))) as uri:
        *_, first = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options()))
        other = sqlite3.connect(Path(tmp_path / "conversations.db"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        edit = lambda talk: talk.edit("ada", "tab", first.conversation, 0, "Who else?", Options())  # noqa: E731
        *_, second = talked(history, uri, edit)
        other.close()
    assert "locked" in second.alert
    assert list(second.messages) == history.open("ada", first.conversation) == list(first.messages)


def test_a_system_prompt_that_is_taken_out_of_its_box_holds_no_longer(history):
    with answering(stream(event("Bill."))) as uri:
        *_, view = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options("Be short.")))
        for system, held in ((None, None), ("", ""), ("Be long.", "Be long.")):
            ask = lambda talk, s=system: talk.ask("ada", "tab", view.conversation, "And?", Options(s))  # noqa: E731
            *_, after = talked(history, uri, ask)
            assert after.messages[-1].details.get("system") == held


def test_the_better_answer_goes_on(history):
    with answering(stream(event("Bill."))) as uri:
        *_, view = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options(compare=True)))
    (_, answer) = view.messages
    assert answer.details["alternatives"] == [{"model": "base", "content": "Bill."}]
    chosen = asyncio.run(Talk(history, Flow("http://127.0.0.1:1/score")).prefer("ada", view.conversation, base=True))
    details = chosen.messages[-1].details
    assert (details["model"], details["preferred"]) == ("base", True)
    assert details["alternatives"] == [{"content": "Bill.", "model": "tuned", "rating": 0}]


def test_another_s_conversation_is_not_there(history):
    with answering(stream(event("Bill."))) as uri:
        *_, view = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options()))
        *_, other = talked(history, uri, lambda talk: talk.retry("grace", "tab", view.conversation, 1, Options()))
    assert "no longer there" in other.alert and not other.messages


def test_a_locked_store_is_said_and_nothing_is_asked(history, tmp_path):
    import sqlite3

    other = sqlite3.connect(Path(tmp_path / "conversations.db"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with answering(stream(event("Bill."))) as uri:
        views = talked(history, uri, lambda talk: talk.ask("ada", "tab", "", "Who?", Options()))
    other.close()
    assert len(views) == 1
    assert views[0].alert.startswith(LOCKED) and "locked" in views[0].alert
    assert history.list("ada") == []


def test_what_cannot_be_sent_is_not_kept(history):
    views = talked(history, "http://127.0.0.1:1/score", lambda talk: talk.ask("ada", "t", "", "x" * 100_000, Options()))
    assert [view.alert for view in views] == ["The message has 100,000 bytes, and 65,536 is the most. Shorten it."]
    assert history.list("ada") == []
