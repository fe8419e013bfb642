"""What bounds the server: slots, queue, deadline, patience; and how it ends: asked to, with a dead engine, or early."""

import json
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import openai
import pytest

from tests.serving.server import ENDLESS, GOOD, MESSAGES, ROUTES, Answer, Server, launched, run, serving, until

#: Seconds after which a slot must be free again, far below the time that an endless answer takes on a loaded machine.
SOON = 10
PATIENCE = 2.0
CHAT = "/v1/chat/completions"


def endless(path: str, stream: bool = False, tokens: int = ENDLESS) -> dict:
    """A request that the random model answers up to the last token."""
    if path == CHAT:
        return {**GOOD[path], "max_tokens": tokens, "stream": stream}
    return {**GOOD[path], "params": {"max_new_tokens": tokens, "temperature": 0}}


@contextmanager
def begun(server: Server, path: str, stream: bool = False, **options: int) -> Iterator[socket.socket]:
    """A bare connection over which a request is in work."""
    with closing(server.connect()) as connection:
        connection.sendall(server.request(path, endless(path, stream, **options)))
        until(lambda: server.busy()[0] >= 1, "the request is in work")
        yield connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


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


def refuses(server: Server) -> bool:
    """Whether nobody listens there any more."""
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_asked_to_end_it_ends_when_what_it_began_is_answered(random_model, tmp_path):
    with ExitStack() as stack:
        server = stack.enter_context(serving(random_model, tmp_path, engine="transformers", slots=1, drain=60))
        assert server.ask("/invocations", endless("/invocations", tokens=1)).status == 200
        pool = stack.enter_context(ThreadPoolExecutor(3))
        bodies = [endless(CHAT, True, tokens=300), endless(CHAT, tokens=20), endless("/invocations", tokens=20)]
        answers: list[Future[Answer]] = [
            pool.submit(server.ask, path, body) for path, body in zip((CHAT, CHAT, "/invocations"), bodies, strict=True)
        ]
        until(lambda: server.busy() == (1, 2), "one in work, two in the queue")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(server), "nobody new is let in")
        streamed, whole, predicted = (answer.result() for answer in answers)
        assert streamed.body.endswith(b"data: [DONE]\n\n")
        assert json.loads(streamed.body.split(b"\n\n")[-3].removeprefix(b"data: "))["choices"][0]["finish_reason"]
        assert (streamed.status, whole.status, predicted.status) == (200, 200, 200)
        assert whole.json["usage"]["completion_tokens"] == 20
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.err


def test_asked_to_end_it_waits_no_longer_than_told(random_model, tmp_path):
    with serving(random_model, tmp_path, engine="transformers", drain=1) as server, begun(server, CHAT) as connection:
        assert server.end() == 0
        assert b"200 OK" not in rest(connection)
        assert "Traceback" not in server.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_while_it_loads(tiny_model, tmp_path, number):
    command = [sys.executable, "-m", "serving"]
    with launched(tmp_path, command, model=tiny_model, engine="transformers") as server:
        assert server.ask("/health").status == 200
        assert server.end(number) == 0
        assert "Traceback" not in server.err


def test_until_the_model_is_loaded_requests_are_sent_away(tiny_model, tmp_path):
    with launched(tmp_path, [sys.executable, "-m", "serving"], model=tiny_model, engine="transformers") as server:
        ready = server.ask("/ready").status
        answers = {path: server.ask(path, GOOD[path]) for path in ROUTES}
        assert ready == 503
        assert {answer.status for answer in answers.values()} == {503}
        assert all(int(answer.headers["Retry-After"]) for answer in answers.values())
        assert server.ask("/metrics").status == server.ask("/version").status == 200


@pytest.mark.parametrize("engine", ["transformers", "onnx"])
def test_a_dead_engine_is_told_to_everyone(exported_model, tmp_path, engine):
    command = [sys.executable, "-m", "tests.serving.dying_server"]
    settings = {"model": exported_model, "engine": engine, "precision": "float32", "slots": 1, "deadline": 600}
    with launched(tmp_path, command, **settings) as server:
        until(lambda: server.ask("/ready").status == 200, "the server is ready")
        answers: list[Answer] = []

        def ask(path: str) -> None:
            for _ in range(20):
                answers.append(server.ask(path, GOOD[path]))

        threads = [threading.Thread(target=ask, args=(path,)) for path in ROUTES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert {answer.status for answer in answers} == {200, 503}
        assert answers[-1].status == 503
        assert all("the fault of this test" not in answer.body.decode() for answer in answers)
        # whoever watches over it is told to start it again
        assert [server.ask(path).status for path in ("/ready", "/health", "/ping")] == [503] * 3
        metrics = server.metrics()
        assert metrics["phikit_engine_alive"] == 0
        assert (metrics["phikit_slots_busy"], metrics["phikit_queue_prompts"]) == (0, 0)
        server.end()


@pytest.fixture
def broken(exported_model, tmp_path):
    """A copy of the model, with a file of it cut short."""

    def make(pattern: str) -> Path:
        copy = tmp_path / "model"
        shutil.copytree(exported_model, copy)
        (file,) = copy.glob(pattern)
        half = file.read_bytes()[: file.stat().st_size // 2]
        file.write_bytes(half + (b"\n[" if file.name == "MLmodel" else b""))
        return copy

    return make


@pytest.mark.parametrize(
    ("engine", "file"),
    [("transformers", "artifacts/weights/model.safetensors"), ("onnx", "artifacts/onnx-float32/model.onnx")],
)
def test_a_model_that_cannot_be_loaded(broken, engine, file):
    result = run(model=broken(file), engine=engine, precision="float32", port=0)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "the model cannot be loaded" in line


@pytest.mark.parametrize("file", ["MLmodel", "artifacts/weights/config.json", "artifacts/weights/tokenizer.json"])
def test_a_model_directory_that_cannot_be_used(broken, file):
    result = run(model=broken(file), port=0)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert file in line


def test_a_port_that_is_taken(tiny_model):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        result = run(model=tiny_model, engine="transformers", port=taken.getsockname()[1])
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: PHIKIT_SERVE_HOST")
    assert "PHIKIT_SERVE_PORT" in line
    assert result.stdout == ""


def test_the_shared_server_is_as_healthy_as_before(small):
    small.until_idle()
    assert small.ask("/score", {"input_data": MESSAGES, "params": {"max_new_tokens": 3}}).status == 200
    assert small.metrics()["phikit_engine_alive"] == 1
