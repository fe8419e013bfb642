"""What bounds the server: slots, queue, deadline, patience."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import openai
import pytest

from tests.serving.server import CHAT, MESSAGES, ROUTES, Server, begun, endless, rest, serving, until

#: Seconds after which a slot must be free again, far below the time that an endless answer takes on a loaded machine.
SOON = 10
PATIENCE = 2.0


@pytest.fixture(scope="module")
def small(random_model, tmp_path_factory) -> Iterator[Server]:
    """One slot, one place in the queue, all the time in the world."""
    folder = tmp_path_factory.mktemp("small")
    settings = {"engine": "transformers", "slots": 1, "queue": 1, "deadline": 600, "patience": PATIENCE}
    with serving(random_model, folder, **settings) as server:
        assert server.ask("/invocations", endless("/invocations", tokens=1)).status == 200
        yield server
        assert "Traceback" not in server.err


@pytest.fixture
def idle(small) -> Iterator[Server]:
    small.until_idle()
    yield small
    small.until_idle()


@pytest.fixture(scope="module")
def hurried(random_model, tmp_path_factory) -> Iterator[Server]:
    """The same with a deadline."""
    settings = {"engine": "transformers", "slots": 1, "queue": 2, "deadline": 1.5, "patience": 5}
    with serving(random_model, tmp_path_factory.mktemp("hurried"), **settings) as server:
        yield server
        assert "Traceback" not in server.err


@pytest.mark.parametrize(("path", "stream"), [*((path, False) for path in ROUTES), (CHAT, True)])
def test_a_client_that_hangs_up_frees_its_slot(idle, path, stream):
    cancelled = idle.metrics().get('phikit_generations_total{finish="cancelled"}', 0)
    with begun(idle, path, stream) as connection:
        if stream:
            assert connection.recv(16).startswith(b"HTTP/1.1 200")
    idle.until_idle(SOON)
    assert idle.metrics()['phikit_generations_total{finish="cancelled"}'] == cancelled + 1
    assert idle.metrics()["phikit_kv_tokens_reserved"] == 0


def test_a_client_that_breaks_the_connection_off_frees_its_slot(idle):
    with begun(idle, CHAT, stream=True) as connection:
        # no farewell: a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    idle.until_idle(SOON)


@pytest.mark.parametrize("path", ROUTES)
def test_a_client_that_hangs_up_in_the_queue_frees_its_place(idle, path):
    with begun(idle, CHAT) as _, closing(idle.connect()) as waiting:
        waiting.sendall(idle.request(path, endless(path)))
        until(lambda: idle.busy() == (1, 1), "one in work, one in the queue")
        waiting.close()
        until(lambda: idle.busy() == (1, 0), "the place in the queue is free", SOON)


def test_an_openai_stream_that_is_closed_frees_its_slot(idle):
    with openai.OpenAI(base_url=f"{idle.url}/v1", api_key="none", max_retries=0) as client:
        body = endless(CHAT)
        stream = client.chat.completions.create(**{**body, "stream": True})
        next(iter(stream))
        # a first piece has come long before the last
        assert idle.busy() == (1, 0)
        stream.close()
        idle.until_idle(SOON)


def test_a_slow_reader_holds_no_slot(idle):
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", idle.port))
        connection.sendall(idle.request(CHAT, endless(CHAT, stream=True)))
        until(lambda: idle.busy()[0] == 1, "the request is in work")
        # nothing is read: it ends, or is given up when the buffers are full
        idle.until_idle()
    idle.is_healthy()


@pytest.mark.parametrize("path", ROUTES)
def test_the_queue_is_bounded(idle, path):
    refused = idle.metrics().get('phikit_refused_total{reason="queue"}', 0)
    with begun(idle, CHAT), closing(idle.connect()) as waiting:
        waiting.sendall(idle.request(CHAT, endless(CHAT)))
        until(lambda: idle.busy() == (1, 1), "one in work, one in the queue")
        answer = idle.ask(path, endless(path))
        assert answer.status == 429
        assert "the queue is full" in answer.message
        assert int(answer.headers["Retry-After"]) >= 1
        # the probes have no queue
        assert idle.ask("/ready").status == 200
    assert idle.metrics()['phikit_refused_total{reason="queue"}'] == refused + 1


def test_the_queue_full_is_openais_rate_limit(idle):
    with (
        begun(idle, "/score"),
        closing(idle.connect()) as waiting,
        openai.OpenAI(base_url=f"{idle.url}/v1", api_key="none", max_retries=0) as client,
    ):
        waiting.sendall(idle.request("/score", endless("/score")))
        until(lambda: idle.busy() == (1, 1), "one in work, one in the queue")
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**endless(CHAT))
        assert refused.value.code == "queue_full"


def test_each_item_of_a_request_counts(idle):
    two = {**endless("/score"), "input_data": ["one", "two"]}
    with closing(idle.connect()) as connection:
        connection.sendall(idle.request("/score", two))
        until(lambda: idle.busy() == (1, 1), "one item in work, one in the queue")
    idle.until_idle(SOON)
    answer = idle.ask("/score", {**two, "input_data": ["one", "two", "three"]})
    assert answer.status == 400
    assert "input_data: 3 items, and one request may have 2" in answer.message


def test_what_waited_is_answered(idle):
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(idle.ask, path, endless(path, tokens=40)) for path in (CHAT, "/score")]
        assert [answer.result().status for answer in answers] == [200, 200]


def test_the_access_log_tells_everything_but_content(idle):
    secret = {"role": "user", "content": "kanarienvogel"}
    whole = idle.ask(CHAT, {**endless(CHAT, tokens=5), "messages": [secret]})
    wrong = idle.ask("/score", {"input_data": [secret, 7]})
    away = idle.ask("/kanarienvogel", method="KANARIENVOGEL")
    ids = [answer.headers["X-Request-Id"] for answer in (whole, wrong, away)]
    until(lambda: idle.log[-1]["request"] == ids[-1], "the last request is logged")
    first, second, third = (next(line for line in idle.log if line["request"] == each) for each in ids)
    assert whole.json["id"] == f"chatcmpl-{ids[0]}"
    assert (first["method"], first["path"], first["status"]) == ("POST", CHAT, 200)
    assert (first["generated_tokens"], first["finish"]) == (5, ["length"])
    assert first["prompt_tokens"] == whole.json["usage"]["prompt_tokens"]
    assert 0 < first["first_token"] <= first["seconds"]
    assert first["time"].endswith("Z")
    assert (second["path"], second["status"], set(second)) == ("/score", 400, {*third})
    assert (third["method"], third["path"], third["status"]) == ("(unknown)", "(unknown)", 404)
    assert "kanarienvogel" not in (idle.out + idle.err).lower()


def test_a_client_that_went_is_logged_as_such(idle):
    with begun(idle, CHAT):
        pass
    until(lambda: idle.log[-1].get("finish") == ["cancelled"], "it is logged")
    assert idle.log[-1]["status"] == 499


@pytest.mark.parametrize("path", ROUTES)
def test_an_answer_past_the_deadline_is_given_up(hurried, path):
    hurried.until_idle()
    answer = hurried.ask(path, endless(path))
    assert answer.status == 408
    assert "no whole answer within the deadline of 1.5 s" in answer.message
    hurried.until_idle(SOON)


def test_a_stream_past_the_deadline_ends_with_its_error(hurried):
    hurried.until_idle()
    with openai.OpenAI(base_url=f"{hurried.url}/v1", api_key="none", max_retries=0) as client:
        stream = iter(client.chat.completions.create(**{**endless(CHAT), "stream": True}))
        assert next(stream).choices[0].delta.role == "assistant"
        with pytest.raises(openai.APIError, match="deadline"):
            list(stream)
    hurried.until_idle(SOON)


def test_the_deadline_counts_in_the_queue(hurried):
    hurried.until_idle()
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: hurried.ask("/score", endless("/score")).status, range(3)))
    assert answers == [408] * 3
    hurried.until_idle(SOON)


def test_a_body_that_comes_drop_by_drop_is_given_up(hurried):
    with closing(hurried.connect()) as connection:
        request = hurried.request("/score", endless("/score"))
        connection.sendall(request[:-40])
        connection.settimeout(0.1)
        answer, drops = b"", iter(request[-40:])

        def dropped() -> bytes:
            nonlocal answer
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                connection.sendall(bytes([next(drops)]))
            return answer

        until(dropped, "an answer", 3.9)
        assert answer.startswith(b"HTTP/1.1 408 ")
        connection.settimeout(SOON)
        assert b"not whole within the deadline of 1.5 s" in answer + rest(connection)


def test_the_shared_server_is_as_healthy_as_before(small):
    small.until_idle()
    assert small.ask("/score", {"input_data": MESSAGES, "params": {"max_new_tokens": 3}}).status == 200
    assert small.metrics()["phikit_engine_alive"] == 1
