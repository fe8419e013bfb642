"""Everything else that clients do wrong: headers, keys, paths, sizes, silence, what is no HTTP at all."""

import json
import socket
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.serving.bad_requests.refusals import CANARY, KEY, MEBIBYTE, refused
from tests.serving.server import DEADLINE, GOOD, ROUTES, Answer, rest, until


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
