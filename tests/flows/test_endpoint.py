"""The endpoint's client: a scoring server, and servers that answer as they should not.

pytest tests/flows/test_endpoint.py
"""

import json
import socket
import subprocess
import sys
import time

import pytest

from flows import endpoint as client
from flows.endpoint import Endpoint, EndpointError
from tests.flows.bad_flow import response, stream
from tests.flows.endpoints import KEY, MESSAGES, QUESTION, delta, endpoint, models, refusal, whole
from tests.serving.models import ANSWER
from tests.serving.server import serving
from tests.training.tracking_server import free_port

HTML = response("200 OK", b"<!doctype html><h1>Sign in</h1>", "text/html")


@pytest.fixture(scope="module")
def scoring(tiny_model, tmp_path_factory):
    with serving(tiny_model, tmp_path_factory.mktemp("scoring"), key=KEY) as server:
        yield server


@pytest.fixture
def at_once(monkeypatch):
    """Pauses between tries as they are asked for, kept instead of waited."""
    pauses: list[float] = []
    monkeypatch.setattr(client.time, "sleep", pauses.append)
    return pauses


def fails(uri: str, kind: str, **settings: object) -> str:
    with pytest.raises(EndpointError) as failed:
        Endpoint(uri, **{"key": KEY, "retries": 0, **settings}).answer(MESSAGES)
    assert failed.value.kind == kind, failed.value
    text = str(failed.value)
    assert KEY not in text
    assert QUESTION not in text
    assert "\n" not in text
    return text


def test_a_scoring_server_streams(scoring):
    pieces = list(Endpoint(f"{scoring.url}/score", KEY).stream(MESSAGES))
    assert "".join(pieces) == ANSWER
    assert len(pieces) > 3


def test_a_wrong_key(scoring):
    assert "PHIKIT_ENDPOINT_KEY" in fails(f"{scoring.url}/score", "key", key="not-the-key-at-all")


def test_a_conversation_beyond_the_context_is_said_in_plain_words(scoring):
    with pytest.raises(EndpointError) as failed:
        Endpoint(f"{scoring.url}/score", KEY).answer([{"role": "user", "content": "word " * 20_000}])
    assert failed.value.kind == "refused"
    assert "too long for the model" in str(failed.value)


@pytest.mark.parametrize("text", ["👩🏽‍🚀 🎉", "مرحبا بالعالم", "שלום", "<script>alert(1)</script>"])
def test_any_script_passes(scoring, text):
    assert isinstance(Endpoint(f"{scoring.url}/score", KEY).answer([{"role": "user", "content": text}]), str)


def test_nobody_listens(at_once):
    fails(f"http://127.0.0.1:{free_port()}/score", "unreachable", retries=3)
    assert len(at_once) == 3
    assert at_once == sorted(at_once)


@pytest.mark.parametrize("routes", [{"models": [HTML]}, {"models": [models()], "chat": [HTML]}])
def test_html(routes):
    with endpoint(**routes) as (uri, _):
        fails(uri, "contract")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(stream(delta("Bill"), end=False), id="connection lost"),
        pytest.param(stream(delta("Bill")), id="no end told"),
        pytest.param(stream(delta("Bill"), b"data: {\n\n"), id="half an event"),
        pytest.param(stream(delta("Bill"), b'data: {"error": {"message": "dead"}}\n\n'), id="error told"),
    ],
)
def test_an_answer_that_stops_half_way_is_not_asked_for_again(answer):
    with endpoint(models=[models()], chat=[answer]) as (uri, server):
        pieces = Endpoint(uri, retries=3).stream(MESSAGES)
        assert next(pieces) == "Bill"
        with pytest.raises(EndpointError) as failed:
            list(pieces)
        assert failed.value.kind == "broken"
        assert len(server.bodies("/v1/chat/completions")) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("429 Too Many Requests", "overloaded"),
        ("503 Unavailable", "loading"),
        # as a managed endpoint hands them on
        ("424 Failed Dependency\r\nms-azureml-model-error-statuscode: 429", "overloaded"),
        ("424 Failed Dependency\r\nms-azureml-model-error-statuscode: 503", "loading"),
    ],
)
def test_overload_passes(at_once, status, kind):
    busy = refusal(status, "busy", "Retry-After: 3")
    with endpoint(models=[models()], chat=[busy, busy, whole("Bill")]) as (uri, _):
        assert Endpoint(uri, retries=2).answer(MESSAGES) == "Bill"
        assert min(at_once) >= 3
    with endpoint(models=[models()], chat=[busy]) as (uri, _):
        fails(uri, kind, retries=1)


def test_a_fault_is_not_asked_again(at_once):
    with endpoint(models=[models()], chat=[refusal("500 Internal Server Error", "dead")]) as (uri, server):
        fails(uri, "contract", retries=3)
        assert len(server.bodies("/v1/chat/completions")) == 1
    assert not at_once


def test_what_a_server_repeats_is_not_shown():
    with endpoint(models=[models()], chat=[refusal("400 Bad Request", f"bad: {QUESTION} with {KEY}")]) as (uri, _):
        assert "bad: … with …" in fails(uri, "refused")


def test_without_openai_routes_the_scoring_route_answers():
    with endpoint(score=[response("200 OK", json.dumps(["Bill Gates"]).encode())]) as (uri, server):
        assert Endpoint(uri).answer(MESSAGES, max_tokens=9) == "Bill Gates"
        (body,) = server.bodies("/score")
    assert body["input_data"] == MESSAGES
    assert body["params"]["max_new_tokens"] == 9


def test_a_model_of_another_name_is_found():
    gone = refusal("404 Not Found", "model: the one that is served is called new")
    with endpoint(models=[models("old"), models("new")], chat=[gone, whole("Bill")]) as (uri, server):
        there = Endpoint(uri, retries=0)
        with pytest.raises(EndpointError):
            there.answer(MESSAGES)
        assert there.answer(MESSAGES) == "Bill"
        assert [body["model"] for body in server.bodies("/v1/chat/completions")] == ["old", "new"]


def test_a_server_that_hangs_up_is_given_up():
    with endpoint(models=[b""]) as (uri, _):
        fails(uri, "broken")


def test_a_silent_server_is_given_up():
    # (the system takes the connection; nobody ever reads from it)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = fails(f"http://127.0.0.1:{silent.getsockname()[1]}/score", "slow", timeout=0.2)
    assert "took longer than 0.2 s" in text


@pytest.mark.parametrize(
    "settings",
    [
        {"PHIKIT_ENDPOINT_URI": "ftp://x/score"},
        {"PHIKIT_ENDPOINT_URI": "http://[::1/score"},
        {"PHIKIT_ENDPOINT_URI": "http://127.0.0.1:50o1/score"},
        {"PHIKIT_ENDPOINT_TIMEOUT": "soon"},
        {"PHIKIT_ENDPOINT_TIMEOUT": "0"},
        {"PHIKIT_ENDPOINT_RETRIES": "-1"},
    ],
)
def test_settings_that_cannot_be_used(settings):
    with pytest.raises(EndpointError, match=next(iter(settings))) as failed:
        Endpoint.configured("tuned", settings)
    assert failed.value.kind == "settings"


def test_settings():
    told = {"PHIKIT_ENDPOINT_URI": " http://a/score ", "PHIKIT_ENDPOINT_KEY": KEY, "PHIKIT_ENDPOINT_RETRIES": "0"}
    made = Endpoint.configured("tuned", told)
    assert (made.uri, made.key, made.retries) == ("http://a/score", KEY, 0)
    assert KEY not in repr(made)
    assert Endpoint.configured("tuned", {"PHIKIT_ENDPOINT_URI": ""}).uri == "http://127.0.0.1:5001/score"
    served_here = {"PHIKIT_SERVE_PORT": "5055", "PHIKIT_SERVE_KEY": "first-of-two, the-second"}
    here = Endpoint.configured("tuned", served_here)
    assert (here.uri, here.key) == ("http://127.0.0.1:5055/score", "first-of-two")
    base = Endpoint.configured("base", served_here | {"PHIKIT_BASE_ENDPOINT_URI": "http://127.0.0.1:5002/score"})
    assert (base.key, base.key_variable) == ("first-of-two", "PHIKIT_SERVE_KEY")
    # its keys are for nobody else
    assert Endpoint.configured("tuned", served_here | {"PHIKIT_ENDPOINT_URI": "http://other/score"}).key == ""
    with pytest.raises(EndpointError, match="PHIKIT_SERVE_PORT: x must be a number"):
        Endpoint.configured("tuned", {"PHIKIT_SERVE_PORT": "x"})
    with pytest.raises(EndpointError, match="PHIKIT_BASE_ENDPOINT_URI"):
        Endpoint.configured("base", told)


def test_it_needs_no_promptflow_and_nothing_of_the_kit():
    program = (
        "import sys, flows.endpoint; print(sorted({'promptflow', 'torch', 'mlflow', 'devtools'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_whoever_stops_reading_frees_the_server(scoring):
    pieces = Endpoint(f"{scoring.url}/score", KEY).stream(MESSAGES)
    next(pieces)
    pieces.close()
    end = time.monotonic() + 30
    while scoring.busy() != (0, 0):
        assert time.monotonic() < end
