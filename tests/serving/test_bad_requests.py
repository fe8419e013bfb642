"""Everything that clients do wrong: each time a refusal that names the field and repeats nothing, and a server that is
as healthy afterwards as it was before."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from serving.errors import Refused
from serving.json_body import check
from tests.serving.server import DEADLINE, GOOD, MESSAGES, ROUTES, Answer, Server, serving, until

#: In every prompt, key and unknown field's value here; nothing that the server says or logs may hold it.
CANARY = "kanarienvogel"
KEY = f"key-of-a-{CANARY}"
SECRET = [{"role": "user", "content": CANARY}]
#: Seconds that the server waits for a silent client.
PATIENCE = 1.5
MEBIBYTE = 2**20

#: What the routes call the conversation, the token limit, and where their params are.
CONVERSATION = {"/v1/chat/completions": "messages", "/score": "input_data", "/invocations": "inputs.0.messages"}
LIMIT = {"/v1/chat/completions": "max_tokens", "/score": "max_new_tokens", "/invocations": "max_new_tokens"}
WITHIN = {"/v1/chat/completions": "", "/score": "params.", "/invocations": "params."}

Make = Callable[[str], tuple[Any, str]]


@pytest.fixture(scope="module")
def server(exported_model, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    settings = {"engine": "onnx", "precision": "float32", "key": f"an-older-key,{KEY}", "patience": PATIENCE}
    with serving(exported_model, folder, **settings) as server:
        assert server.ask("/invocations", GOOD["/invocations"]).status == 200
        yield server
        server.is_healthy()
        server.end()
        assert CANARY not in server.out + server.err
        assert "Traceback" not in server.err


@pytest.fixture(autouse=True)
def nothing_is_left_in_work(server) -> Iterator[None]:
    yield
    server.until_idle()


def refused(answer: Answer, status: int, named: str) -> None:
    """It is that refusal, in the shape of its route, and it repeats nothing."""
    assert answer.status == status, answer.body
    assert named in answer.message
    assert CANARY not in answer.body.decode()
    assert answer.headers["Content-Type"] == "application/json"


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


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "text/csv", "application/json; charset=latin-1"]
)
def test_a_wrong_content_type(server, path, kind):
    refused(server.ask(path, GOOD[path], headers={"Content-Type": kind}), 415, "Content-Type: ")


@pytest.mark.parametrize("path", ROUTES)
def test_no_content_type(server, path):
    with closing(server.connect()) as connection:
        request = server.request(path, GOOD[path]).replace(b"Content-Type: application/json\r\n", b"")
        connection.sendall(request)
        assert connection.recv(65536).startswith(b"HTTP/1.1 415 ")


@pytest.mark.parametrize(
    "kind", ["application/json;charset=UTF-8", "Application/JSON; charset=utf8", "application/json; v=1"]
)
def test_a_content_type_in_another_spelling(server, kind):
    for path in ROUTES:
        assert server.ask(path, GOOD[path], headers={"Content-Type": kind}).status == 200


@pytest.mark.parametrize("path", [*ROUTES, "/v1/models", "/version", "/metrics", "/openapi.json", "/nowhere"])
@pytest.mark.parametrize(
    "told", [None, "", "Bearer", f"Bearer {KEY}x", f"Bearer x{CANARY}", f"Basic {KEY}", KEY, "Bearer schlüssel"]
)
def test_no_key_or_a_wrong_one(server, path, told):
    body = GOOD.get(path)
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)) as connection:
        headers = {"Content-Type": "application/json"} | ({} if told is None else {"Authorization": told})
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
    refused(answer, 401, "Authorization: ")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_every_key_of_the_setting_opens(server):
    for key in (KEY, "an-older-key"):
        for scheme in ("Bearer", "bearer"):
            assert server.ask("/v1/models", headers={"Authorization": f"{scheme} {key}"}).status == 200


def test_probes_need_no_key(server):
    for path in ("/ping", "/health", "/ready"):
        assert server.ask(path, headers={"Authorization": ""}).status == 200


@pytest.mark.parametrize("path", [*ROUTES, "/v1/models", "/health", "/nowhere"])
@pytest.mark.parametrize("query", [f"key={KEY}", f"api_key={KEY}", f"{KEY}", "a=%00&b", "%ff"])
def test_a_key_in_the_query_string(server, path, query):
    # with the right header too: it would have been logged on its way
    answer = server.ask(f"{path}?{query}", GOOD.get(path))
    refused(answer, 400, "the query string: ")
    assert "Authorization: Bearer" in answer.message


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", CANARY.upper()])
def test_a_wrong_method(server, path, method):
    refused(server.ask(path, method=method), 405, "this route")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/completions", "/score/", "/docs", f"/{CANARY}", "//score", "/%00", "/..%2f"]
)
def test_an_unknown_path(server, path):
    refused(server.ask(path), 404, "there is no such route")
    refused(server.ask(path, GOOD["/score"]), 404, "there is no such route")


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_of_50_megabytes(server, path):
    refused(server.ask(path, b" " * 50 * MEBIBYTE), 413, f"the body: is larger than {MEBIBYTE} bytes")


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_of_50_megabytes_in_chunks(server, path):
    headers = {**server.authorization, "Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)) as connection:
        chunks = (b" " * MEBIBYTE for _ in range(50))
        connection.request("POST", path, chunks, headers, encode_chunked=True)
        response = connection.getresponse()
        refused(Answer(response.status, response.headers, response.read()), 413, "the body: is larger than")


def test_a_large_body_is_refused_before_it_is_sent(server):
    with closing(server.connect()) as connection:
        request = server.request("/score", {}, "Expect: 100-continue").replace(
            b"Content-Length: 2", b"Content-Length: 52428800"
        )
        connection.sendall(request.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def rest(connection) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


@pytest.mark.parametrize("path", ROUTES)
def test_half_a_body_and_silence(server, path):
    with closing(server.connect()) as connection:
        connection.sendall(server.request(path, GOOD[path])[:-10])
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body: nothing more of it came within 1.5 s" in answer


@pytest.mark.parametrize("begun", [b"", b"P", b"POST /score HTTP/1.1\r\nHost: x\r\nContent-"])
def test_half_a_header_and_silence(server, begun):
    with closing(server.connect()) as connection:
        connection.sendall(begun)
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_half_a_header_on_a_connection_that_was_used(server):
    with closing(server.connect()) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea")
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_takes_no_answer_is_let_go(server):
    request = f"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode() * 10_000
    with closing(socket.socket()) as connection:
        # more answers than all buffers on the way hold
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(0.1)
        sent = 0

        def is_let_go() -> bool:
            nonlocal sent
            try:
                sent = (sent + connection.send(request[sent:])) % len(request)
            except TimeoutError:
                return False
            except OSError:
                return True
            return False

        until(is_let_go, "the connection is broken off", 60)
    assert server.err.count("ASGI") == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\1\2\r\n\r\n",
        b"GET /\r\n\r\n",
        b"POST /score HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"x" * (2**16 + 1),
    ],
)
def test_what_is_no_http(server, sent):
    with closing(server.connect()) as connection:
        connection.sendall(sent)
        assert rest(connection).startswith(b"HTTP/1.1 400 ")


def test_requests_sent_before_the_answers(server):
    wrong, right = server.request("/score", {"input_data": 7}), server.request("/score", GOOD["/score"])
    with closing(server.connect()) as connection:
        connection.sendall(right + wrong + right[:40])
        connection.sendall(right[40:] + server.request("/nowhere", {}, "Connection: close"))
        answers = rest(connection).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"400", b"200", b"404"]


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
