"""How the server ends: asked to, with a dead engine, or before it has begun."""

import json
import shutil
import signal
import socket
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.serving.server import (
    CHAT,
    GOOD,
    ROUTES,
    Answer,
    Server,
    begun,
    endless,
    launched,
    rest,
    run,
    serving,
    until,
)


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
