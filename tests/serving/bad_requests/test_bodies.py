"""Everything that clients write wrong into a body: each time a refusal that names the field and repeats nothing."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from serving.errors import Refused
from serving.json_body import check
from tests.serving.bad_requests.refusals import CANARY, MEBIBYTE, SECRET, refused
from tests.serving.server import GOOD, MESSAGES, ROUTES

#: What the routes call the conversation, the token limit, and where their params are.
CONVERSATION = {"/v1/chat/completions": "messages", "/score": "input_data", "/invocations": "inputs.0.messages"}
LIMIT = {"/v1/chat/completions": "max_tokens", "/score": "max_new_tokens", "/invocations": "max_new_tokens"}
WITHIN = {"/v1/chat/completions": "", "/score": "params.", "/invocations": "params."}


Make = Callable[[str], tuple[Any, str]]


def conversation(path: str, messages: Any) -> dict:
    """A request with that conversation."""
    if path == "/invocations":
        return {"inputs": [{"messages": messages}]}
    return {**GOOD[path], CONVERSATION[path]: messages}


def with_messages(messages: Any, below: str = "") -> Make:
    return lambda path: (conversation(path, messages), CONVERSATION[path] + below)


def with_param(name: str, value: Any) -> Make:
    def make(path: str) -> tuple[dict, str]:
        field = LIMIT[path] if name == "limit" else name
        params = {field: value}
        body = conversation(path, SECRET)
        return {**body, **params} if not WITHIN[path] else {**body, "params": params}, f"{WITHIN[path]}{field}: "

    return make


def with_text(text: bytes) -> Make:
    """The body of a right request with `text` as the content."""
    return lambda path: (
        json.dumps(conversation(path, [{"role": "user", "content": "TEXT"}])).encode().replace(b'"TEXT"', text),
        CONVERSATION[path] + ".0.content",
    )


WRONG: dict[str, Make] = {
    "unknown field": lambda path: ({**conversation(path, SECRET), "Colour": CANARY}, "Colour: there is no such field"),
    "unknown param": with_param("colour", CANARY),
    "no messages": with_messages([]),
    "messages that are a number": with_messages(7),
    "messages that are an object": with_messages({"role": "user", "content": CANARY}),
    "a message that is no object": with_messages([7], ".0"),
    "a message that is null": with_messages([None], ".0"),
    "wrong role": with_messages([{"role": "king", "content": CANARY}, *SECRET], ".0.role"),
    "tool role": with_messages([{"role": "tool", "content": CANARY}, *SECRET], ".0.role"),
    "no role": with_messages([{"content": CANARY}], ".0.role: is missing"),
    "no content": with_messages([{"role": "user"}], ".0.content: is missing"),
    "content that is null": with_messages([{"role": "user", "content": None}], ".0.content"),
    "content that is a number": with_messages([{"role": "user", "content": 5}], ".0.content"),
    "a picture": with_messages(
        [{"role": "user", "content": [{"type": "image_url", "image_url": CANARY}]}], ".0.content.0"
    ),
    "a message with a name": with_messages([{"role": "user", "content": CANARY, "name": CANARY}], ".0.name"),
    "the assistant last": with_messages([*SECRET, {"role": "assistant", "content": CANARY}], ": must end with a user"),
    "a prompt over the context": lambda path: (
        conversation(path, [{"role": "user", "content": f"{CANARY} " * 2000}]),
        " tokens, and with the answer at most ",
    ),
    "half a surrogate pair": with_text(b'"\\ud800"'),
    "the other half": with_text(b'"%s \\udfff x"' % CANARY.encode()),
    "temperature as text": with_param("temperature", "0.7"),
    "temperature not a number": with_param("temperature", float("nan")),
    "temperature infinite": with_param("temperature", float("inf")),
    "temperature below 0": with_param("temperature", -0.1),
    "temperature of 400 digits": with_param("temperature", 10**400),
    "temperature a list": with_param("temperature", [CANARY]),
    "top_p of 0": with_param("top_p", 0),
    "top_p above 1": with_param("top_p", 1.1),
    "seed as text": with_param("seed", CANARY),
    "a huge seed": with_param("seed", 10**30),
    "no tokens": with_param("limit", 0),
    "negative tokens": with_param("limit", -1),
    "half a token": with_param("limit", 1.5),
    "tokens as text": with_param("limit", "12"),
    "tokens as a truth": with_param("limit", True),
    "huge number of tokens": with_param("limit", 10**30),
    "tokens over the context": with_param("limit", 2000),
    "a number of 5,000 digits": lambda path: (b'{"seed": %s}' % (b"1" * 5000), "the body: holds a number"),
    "deep nesting": lambda path: (b"[" * 100_000, "the body: is nested too deeply"),
    "deep nesting of objects": lambda path: (b'{"a":' * 50_000, "the body: is nested too deeply"),
    "a field twice": lambda path: (b'{"temperature": 0, "temperature": 2}', "temperature: is given twice"),
    "no JSON": lambda path: (f'{{"{CANARY}": '.encode(), "the body: is not JSON"),
    "JSON and more": lambda path: (json.dumps(GOOD[path]).encode() + b"}", "the body: is not JSON"),
    "nothing": lambda path: (b"", "the body: is empty"),
    "not UTF-8": lambda path: (json.dumps(GOOD[path]).encode("utf-16"), "the body: is not UTF-8"),
    "a list": lambda path: ([SECRET], "the body: must be an object"),
    "a text": lambda path: (CANARY, "the body: must be an object"),
    "null": lambda path: (b"null", "the body"),
    "an empty object": lambda path: ({}, "the body: exactly one" if path == "/invocations" else "is missing"),
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_a_body_that_cannot_be_used(server, path, make):
    body, named = make(path)
    refused(server.ask(path, body), 400, named)


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/chat/completions", {"messages": SECRET}, "model: is missing"),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "n": 2}, "n: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "n": 0}, "n: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "n": True}, "n: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "logprobs": True}, "logprobs: must be false"),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "logprobs": 0}, "logprobs: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "presence_penalty": False}, "presence_penalty: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "stop": [CANARY] * 5}, "stop: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "stop": ""}, "stop: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "stop": {"a": CANARY}}, "stop: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "stream": CANARY}, "stream: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "stream_options": {}}, "stream_options: "),
        (
            "/v1/chat/completions",
            {**GOOD["/v1/chat/completions"], "max_tokens": 2, "max_completion_tokens": 3},
            "max_t",
        ),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "frequency_penalty": 1}, "frequency_penalty: "),
        ("/v1/chat/completions", {**GOOD["/v1/chat/completions"], "tools": [{"type": CANARY}]}, "tools: "),
        ("/score", {}, "input_data: is missing"),
        ("/score", {"input_data": ""}, "input_data: must not be empty"),
        ("/score", {"input_data": ["ok", ""]}, "input_data.1: must not be empty"),
        ("/score", {"input_data": [CANARY, 7]}, "input_data.1: "),
        ("/score", {"input_data": [CANARY, *SECRET]}, "input_data.1: "),
        ("/score", {"input_data": CANARY, "params": [CANARY]}, "params: must be an object"),
        ("/score", {"input_data": CANARY, "params": None}, "params: must be an object"),
        ("/invocations", {"inputs": CANARY}, "inputs: must be a list of rows, or one row"),
        ("/invocations", {"inputs": [{"prompt": CANARY}]}, "inputs.0.messages: is missing"),
        ("/invocations", {"inputs": [{"messages": SECRET}], "messages": SECRET}, "exactly one of messages, inputs"),
        ("/invocations", {"inputs": [{"messages": SECRET}], "seed": 3}, "seed: belongs into params"),
        ("/invocations", {"messages": SECRET, "params": {}}, "params: not with messages"),
        ("/invocations", {"dataframe_split": {"columns": [CANARY], "data": [[SECRET]]}}, "dataframe_split.columns.0: "),
        ("/invocations", {"dataframe_split": {"columns": ["messages"], "data": []}}, "dataframe_split.data: "),
        ("/invocations", {"dataframe_records": [{"messages": SECRET}, {}]}, "dataframe_records.1.messages: is missing"),
        ("/invocations", {"instances": [{"messages": SECRET}]}, "instances: "),
    ],
)
def test_a_field_of_one_route_alone(server, path, body, named):
    refused(server.ask(path, body), 400, named)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/score", {"input_data": [CANARY] * 10_000}, "input_data"),
        ("/invocations", {"inputs": [{"messages": SECRET}] * 10_000}, "inputs"),
        ("/invocations", {"dataframe_records": [{"messages": SECRET}] * 10_000}, "dataframe_records"),
        (
            "/invocations",
            {"dataframe_split": {"columns": ["messages"], "data": [[SECRET]] * 10_000}},
            "dataframe_split",
        ),
    ],
)
def test_more_items_than_one_request_may_have(server, path, body, field):
    refused(server.ask(path, body), 400, f"{field}: 10000 items, and one request may have 32")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (
            "/v1/chat/completions",
            {"model": "phikit", "messages": [{"role": "user", "content": [0] * 300_000}]},
            "messages",
        ),
        ("/score", {"input_data": [CANARY] + [0] * 300_000}, "input_data.1"),
        ("/invocations", {"inputs": [0] * 300_000}, "inputs.0"),
        (
            "/invocations",
            {"dataframe_split": {"columns": ["messages"], "data": [0] * 300_000}},
            "dataframe_split.data.0",
        ),
    ],
)
def test_of_many_wrong_items_the_first_is_told(server, path, body, field):
    answer = server.ask(path, body)
    refused(answer, 400, f"{field}")
    assert ";" not in answer.message


def test_a_field_twice_after_many_others_is_found_at_once():
    names = ",".join(f'"{number}": 0' for number in range(20_000))
    began = time.process_time()
    with pytest.raises(Refused, match="last: is given twice"):
        check(f'{{{names}, "last": 0, "last": 1}}'.encode())
    assert time.process_time() - began < 2


def test_however_deep_a_body_is_nested_it_is_told(server):
    for depth in range(900, 1000):
        answer = server.ask("/score", b'{"input_data": ' + b"[" * depth + b"]" * depth + b"}")
        assert answer.status == 400
        assert answer.message in ("the body: is nested too deeply", "input_data.0: must be an object")


def test_the_limits_are_told_with_their_numbers(server):
    context = server.ask("/version").json["limits"]["context"]
    long = server.ask("/score", {"input_data": "word " * 3000})
    refused(long, 400, f"and with the answer at most {context} are taken")
    refused(server.ask("/score", {"input_data": "x", "params": {"max_new_tokens": 5000}}), 400, f"context of {context}")
    refused(
        server.ask("/invocations", {"inputs": {"messages": [{"role": "user", "content": "x " * 3000}]}}), 400, "inputs"
    )
    beside = server.ask("/invocations", {"messages": SECRET, "max_new_tokens": 5000})
    refused(beside, 400, f"context of {context}")
    assert beside.message.startswith("max_new_tokens: 5000 tokens")


def test_a_null_character_is_a_character(server):
    for path in ROUTES:
        assert server.ask(path, conversation(path, [{"role": "user", "content": "a\u0000b"}])).status == 200


def test_memory_is_flat_after_hundreds_of_bad_requests(server):
    def resident() -> float:
        return server.metrics()["process_resident_memory_bytes"]

    def all_of_them() -> None:
        for path in ROUTES:
            for make in WRONG.values():
                server.ask(path, make(path)[0])
            server.ask(path, b" " * 5 * MEBIBYTE)
        server.ask("/score", {"input_data": [CANARY] * 10_000})
        server.ask("/invocations", {"inputs": [{"messages": MESSAGES}] * 10_000})

    # what the allocator keeps for the next time, it has after the first
    all_of_them()
    all_of_them()
    before, asked = resident(), server.metrics()['phikit_requests_total{route="/score",status="400"}']
    for _ in range(4):
        all_of_them()
    grown = resident() - before
    assert server.metrics()['phikit_requests_total{route="/score",status="400"}'] - asked > 150
    assert grown < 16 * MEBIBYTE, f"{grown / MEBIBYTE:.1f} MiB more"
