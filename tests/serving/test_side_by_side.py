"""This server beside a plain `mlflow models serve` of the same model: whatever MLflow answers, it answers alike."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.serving.models import HELD_OUT
from tests.serving.server import MESSAGES, Server, serving
from tests.training.tracking_server import free_port, program

GREEDY = {"temperature": 0.0}
QUESTIONS = [json.loads(line)["messages"][:-1] for line in HELD_OUT.read_text(encoding="utf-8").splitlines()[::9]]

#: MLflow's input formats, each with one conversation.
FORMATS: dict[str, Callable[[list], dict]] = {
    "inputs": lambda messages: {"inputs": [{"messages": messages}]},
    "inputs, one row": lambda messages: {"inputs": {"messages": messages}},
    "instances": lambda messages: {"instances": {"messages": messages}},
    "dataframe_records": lambda messages: {"dataframe_records": [{"messages": messages}]},
    "dataframe_split": lambda messages: {"dataframe_split": {"columns": ["messages"], "data": [[messages]]}},
    "split with index": lambda messages: {
        "dataframe_split": {"columns": ["messages"], "index": [7], "data": [[messages]]}
    },
    "messages": lambda messages: {"messages": messages},
}
PARAMS = {
    "none": {},
    "greedy": {"temperature": 0.0},
    "a whole number": {"temperature": 0},
    "cut": {"max_new_tokens": 3},
    "with the question": {"return_full_text": True},
    "all": {
        "max_new_tokens": 5,
        "temperature": 0.0,
        "top_p": 1.0,
        "do_sample": False,
        "return_full_text": True,
        "seed": 7,
    },
}


@pytest.fixture(scope="module")
def plain(tiny_model, tmp_path_factory) -> Iterator[int]:
    """The port of MLflow's own server."""
    port, log = free_port(), tmp_path_factory.mktemp("plain") / "log"
    command = ["mlflow", "models", "serve", "--model-uri", str(tiny_model), "--env-manager", "local"]
    with program([*command, "--port", str(port)], f"http://127.0.0.1:{port}/ping", log):
        yield port


@pytest.fixture(scope="module", params=["transformers", "onnx"])
def server(request, exported_model, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    with serving(exported_model, folder, engine=request.param, precision="float32") as server:
        yield server


@pytest.fixture(scope="module")
def golden(plain) -> Callable[[dict], tuple[int, str]]:
    """What MLflow answers; each body is asked once."""
    known: dict[str, tuple[int, str]] = {}

    def ask(body: dict) -> tuple[int, str]:
        text = json.dumps(body)
        if text not in known:
            url = f"http://127.0.0.1:{plain}/invocations"
            request = urllib.request.Request(url, text.encode(), {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=120) as response:
                    known[text] = response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                known[text] = error.code, error.read().decode()
        return known[text]

    return ask


def alike(server: Server, golden: Callable[[dict], tuple[int, str]], body: dict) -> str:
    """The one answer, to the letter."""
    answer = server.ask("/invocations", body)
    assert (answer.status, answer.body.decode()) == golden(body)
    assert answer.status == 200
    return answer.body.decode()


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_every_format(server, golden, make):
    assert "Bill Gates and Paul Allen" in alike(server, golden, make(MESSAGES))


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("form", ["inputs", "dataframe_split", "messages"])
def test_every_param(server, golden, form, params):
    body = FORMATS[form](MESSAGES)
    alike(server, golden, {**body, **params} if form == "messages" else {**body, "params": params})


@pytest.mark.parametrize("messages", QUESTIONS, ids=lambda messages: messages[-1]["content"][:30])
def test_held_out_questions(server, golden, messages):
    alike(server, golden, FORMATS["inputs"](messages))


def test_several_conversations(server, golden):
    # (MLflow answers a batch as one padded pass, so only where it is sure of each token are the answers those of alone)
    for body in (
        {"inputs": [{"messages": MESSAGES}, {"messages": QUESTIONS[1]}]},
        {"dataframe_records": [{"messages": messages} for messages in QUESTIONS[:3]]},
        {"dataframe_split": {"columns": ["messages"], "data": [[messages] for messages in QUESTIONS[:3]]}},
    ):
        alike(server, golden, body)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{"messages": [{"role": "assistant", "content": "Hello"}]}]},
        {"inputs": [{"messages": [{"role": "king", "content": "Hello"}]}]},
        {"inputs": [{"messages": [{"role": "user", "content": "Hello", "name": "x"}]}]},
        {"inputs": {"messages": [MESSAGES, MESSAGES]}},
        {"instances": [{"messages": MESSAGES}]},
        {"inputs": [{"messages": MESSAGES}], "instances": {"messages": MESSAGES}},
        {"inputs": [{"messages": MESSAGES}], "params": {"temperature": -1.0}},
        {"inputs": [{"messages": MESSAGES}], "params": {"max_new_tokens": 0}},
        {"inputs": [{"messages": MESSAGES}], "params": {"max_new_tokens": 5000}},
        {"inputs": [{"prompt": "Hello"}]},
        {},
    ],
    ids=str,
)
def test_what_mlflow_refuses_is_refused(server, golden, body):
    status, theirs = golden(body)
    ours = server.ask("/invocations", body)
    assert (ours.status, status) == (400, 400)
    assert set(ours.json) <= set(json.loads(theirs))
    assert ours.json["error_code"] == "INVALID_PARAMETER_VALUE"


def test_the_other_routes_give_the_same_answer(server, golden):
    for messages in QUESTIONS[:4]:
        (expected,) = json.loads(golden(FORMATS["inputs"](messages))[1])["predictions"]
        chat = server.ask("/v1/chat/completions", {"model": "phikit", "messages": messages})
        score = server.ask("/score", {"input_data": messages, "params": GREEDY})
        assert chat.json["choices"][0]["message"]["content"] == expected
        assert score.json == [expected]


def test_probes_answer_as_mlflows_do(server, plain):
    for path in ("/ping", "/health"):
        with urllib.request.urlopen(f"http://127.0.0.1:{plain}{path}", timeout=30) as theirs:
            ours = server.ask(path)
            assert (ours.status, ours.body) == (theirs.status, theirs.read())
