"""The chat flow served by `pf flow serve`: streams, keeps to JSON errors, and says what is wrong with an endpoint.

pytest tests/flows/test_chat_flow.py
"""

import json
import time
import urllib.error
import urllib.request

import pytest

from tests.flows.bad_flow import response, stream
from tests.flows.endpoints import QUESTION, delta, endpoint, models, refusal, whole
from tests.flows.parts import flow

EVENTS = {"Accept": "text/event-stream"}


def ask(uri: str, body: object, **headers: str) -> tuple[int, str]:
    """Status and text of one request; bytes go as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(uri, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The flow's address, and the endpoint behind it, whose answers a test may replace."""
    with (
        endpoint(models=[models()], chat=[whole("Bill")]) as (uri, server),
        flow(tmp_path_factory.mktemp("flow"), uri.removesuffix("/score")) as address,
    ):
        yield address, server


@pytest.fixture
def answers(served):
    """Puts an answer in the endpoint's place for one test."""
    _, server = served

    def put(answer: bytes) -> None:
        server._answers["/v1/chat/completions"] = [answer]

    put(whole("Bill"))
    server.asked.clear()
    yield put


def test_it_answers_whole_and_in_events(served, answers):
    uri, server = served
    answers(stream(delta("Bill "), delta("Gates"), delta("", "stop")))
    assert ask(uri, {"input_data": QUESTION}) == (200, '{"answer":"Bill Gates"}')
    status, text = ask(uri, {"input_data": QUESTION}, **EVENTS)
    assert status == 200
    pieces = [json.loads(line[5:])["answer"] for line in text.splitlines() if line.startswith("data:")]
    assert pieces == ["Bill ", "Gates"]
    assert server.bodies("/v1/chat/completions")[0]["messages"] == [{"role": "user", "content": QUESTION}]


def test_history_and_system_text_reach_the_model(served, answers):
    uri, server = served
    history = [{"inputs": {"input_data": "a"}, "outputs": {"answer": "b"}}]
    status, _ = ask(uri, {"input_data": "👩🏽‍🚀 مرحبا", "chat_history": history, "system": "brief", "max_tokens": 7})
    assert status == 200
    (body,) = server.bodies("/v1/chat/completions")
    assert [message["content"] for message in body["messages"]] == ["brief", "a", "b", "👩🏽‍🚀 مرحبا"]
    assert body["max_tokens"] == 7


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"chat_history": [{"question": "a"}]}, "chat_history"),
        ({"chat_history": 3}, "chat_history"),
        ({"model": "other"}, "model"),
        ({"model": "base"}, "PHIKIT_BASE_ENDPOINT_URI"),
        ({"input_data": " "}, "input_data"),
        ({"input_data": "a" * 100_000}, "input_data"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_inputs_that_cannot_be_used(served, answers, inputs, field):
    uri, server = served
    status, text = ask(uri, {"input_data": QUESTION, **inputs}, **EVENTS)
    assert status == 400
    assert field in json.loads(text)["error"]["message"]
    assert not server.asked


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "events"])
@pytest.mark.parametrize("value", [5, 0.5, None, True, {}, {"a": 1}, [], ["a"]], ids=str)
@pytest.mark.parametrize("field", ["input_data", "system", "model"])
def test_a_text_that_is_none_is_never_answered(served, answers, field, value, headers):
    uri, server = served
    status, text = ask(uri, {"input_data": QUESTION, field: value}, **headers)
    assert (status, json.loads(text)["error"]["message"]) == (400, f"{field}: must be a text")
    assert not server.asked


@pytest.mark.parametrize(
    ("body", "says"),
    [("x", "the body"), (5, "the body"), (None, "the body"), ([], "the body"), (["a"], "the body"), ({}, "input_data")],
    ids=str,
)
def test_a_body_without_a_question_is_never_answered(served, answers, body, says):
    uri, server = served
    status, text = ask(uri, body)
    assert status == 400
    assert json.loads(text)["error"]["message"].startswith(f"{says}: ")
    assert not server.asked


def test_what_another_try_may_help_is_told_apart(served, answers):
    uri, _ = served
    answers(refusal("400 Bad Request", "messages: 90 tokens are taken; shorten the conversation"))
    status, text = ask(uri, {"input_data": QUESTION})
    assert status == 400
    assert "too long for the model; begin a new one" in text and "try again" not in text
    answers(stream(delta("Bill"), end=False))
    _, text = ask(uri, {"input_data": QUESTION}, **EVENTS)
    assert "try again" in text


def test_the_model_is_described_without_a_question(served, answers):
    uri, server = served
    told = {"model": {"name": "phikit", "run": "my run"}, "limits": {"context": 512}}
    server._answers["/version"] = [response("200 OK", json.dumps(told).encode())]
    status, text = ask(uri, {"input_data": "", "about": True})
    assert status == 200
    assert json.loads(json.loads(text)["answer"]) == {"name": "phikit", "run": "my run", "context": 512}
    assert not server.bodies("/v1/chat/completions")


def test_malformed_json(served):
    status, text = ask(served[0], b"{bad")
    assert status == 400
    assert json.loads(text)["error"]["message"]


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["whole", "events"])
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refusal("401 Unauthorized", "no"), "key"),
        (refusal("400 Bad Request", "too long for the context"), "too long"),
        (response("200 OK", b"<html>Sign in</html>", "text/html"), "check its URI"),
    ],
    ids=["key", "refused", "html"],
)
def test_an_endpoint_in_trouble_is_a_status_with_a_sentence(served, answers, answer, says, headers):
    answers(answer)
    status, text = ask(served[0], {"input_data": QUESTION}, **headers)
    assert status == 400
    assert says in json.loads(text)["error"]["message"]
    assert QUESTION not in text


def test_an_answer_that_stops_half_way_is_never_a_whole_one(served, answers):
    answers(stream(delta("Bill"), end=False))
    status, text = ask(served[0], {"input_data": QUESTION})
    assert status == 400
    assert "broke the answer off" in text
    status, text = ask(served[0], {"input_data": QUESTION}, **EVENTS)
    assert status == 200
    first, last = [json.loads(line[5:])["answer"] for line in text.splitlines() if line.startswith("data:")]
    assert first == "Bill"
    assert "broke the answer off" in last["error"]["message"]


def test_an_endpoint_that_is_down(tmp_path):
    started = time.monotonic()
    with flow(tmp_path, "http://127.0.0.1:9") as address:
        status, text = ask(address, {"input_data": QUESTION})
    assert status == 400
    assert "cannot be reached" in text
    assert time.monotonic() - started < 120
