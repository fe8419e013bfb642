"""The agent answers as the chat flow does, streams, keeps what was said, and says in one line what went wrong.

pytest tests/flows/test_agent.py

The agent runs in .venv-agent and the flow in .venv-flow, each a process: their packages exclude each other.
"""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.endpoint import Endpoint
from flows.history import open_history
from tests.flows.parts import AGENT_PYTHON, FLOW_PYTHON, NO_PARTS, absent
from tests.flows.stores import free_port
from tests.serving.server import ANSWER, QUESTION, serving

ROOT = Path(__file__).parents[2]
#: A conversation whose later questions cannot be answered without the earlier ones.
QUESTIONS = [QUESTION, "When was it founded?", "Who founded it? 🙂", QUESTION]


@pytest.fixture(scope="module", autouse=True)
def agent_is_there() -> None:
    if not AGENT_PYTHON.exists():
        absent(f"no environment of the agent: {AGENT_PYTHON.parents[1].name}; run: make setup-agent")


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    with serving(tiny_model, tmp_path_factory.mktemp("scoring"), key="secret-key-1") as running:
        yield running


@pytest.fixture
def environment(server, tmp_path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PHIKIT_", "OPENAI_", "AZURE_"))}
    return kept | {
        "PHIKIT_ENDPOINT_URI": f"{server.url}/score",
        "PHIKIT_ENDPOINT_KEY": "secret-key-1",
        "PHIKIT_HISTORY": f"sqlite:{tmp_path / 'conversations.db'}",
    }


def ask(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    """`python -m flows.agent ARGUMENTS` to its end."""
    return subprocess.run(
        [AGENT_PYTHON, "-m", "flows.agent", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def in_turns(environment: dict[str, str], questions: list[str]) -> dict:
    """The agent's answers to one conversation's questions, and the conversation's id."""
    done = subprocess.run(
        [AGENT_PYTHON, "-m", "tests.flows.answer_in_turns"],
        cwd=ROOT,
        env=environment,
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(done.stdout)


def test_each_answer_is_the_endpoints_own_to_the_whole_conversation(environment):
    endpoint = Endpoint.configured(environment=environment)
    messages, expected = [], []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        expected.append(endpoint.answer(messages))
        messages.append({"role": "assistant", "content": expected[-1]})
    told = in_turns(environment, QUESTIONS)
    assert [answer["answer"] for answer in told["answers"]] == expected
    assert expected[0] == ANSWER
    # streamed, not handed over at the end
    assert told["answers"][0]["pieces"] > 3
    history = open_history(environment)
    kept = history.open("local", told["conversation"])
    history.close()
    assert [{"role": message.role, "content": message.content} for message in kept] == messages


def test_the_agent_and_the_chat_flow_give_the_same_answers(environment, tmp_path):
    if not FLOW_PYTHON.exists():
        absent(f"{NO_PARTS}: {FLOW_PYTHON.parents[1].name}")
    quiet = {
        "PF_HOME_DIRECTORY": str(tmp_path / "promptflow"),
        "PF_TRACING_SKIP_LOCAL_SETUP": "true",
        "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    }
    subprocess.run(
        [FLOW_PYTHON, "-m", "tests.flows.flow_in_turns", tmp_path / "answers.json"],
        cwd=ROOT,
        env=environment | quiet,
        input=json.dumps(QUESTIONS),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    told = in_turns(environment, QUESTIONS)["answers"]
    assert [answer["answer"] for answer in told] == json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))


def test_a_question_is_answered_and_kept_and_the_conversation_goes_on(environment):
    first = ask(environment, QUESTION)
    assert (first.returncode, first.stdout) == (0, f"{ANSWER}\n"), first.stderr
    conversation = first.stderr.split()[-1]
    second = ask(environment, "--conversation", conversation, "And when?")
    assert second.returncode == 0, second.stderr
    history = open_history(environment)
    messages = history.open("local", conversation)
    (summary,) = history.list("local")
    history.close()
    assert [message.role for message in messages] == ["user", "assistant"] * 2
    assert [message.content for message in messages[:3]] == [QUESTION, ANSWER, "And when?"]
    assert messages[1].details == {"model": "tuned", "temperature": 0.0, "max_tokens": 128}
    assert summary.title == QUESTION


def test_a_system_text_holds_for_the_conversation(environment):
    done = ask(environment, "--system", "Be short.", QUESTION)
    assert done.returncode == 0, done.stderr
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": QUESTION}]
    assert done.stdout == Endpoint.configured(environment=environment).answer(messages) + "\n"
    history = open_history(environment)
    kept = history.open("local", done.stderr.split()[-1])
    history.close()
    assert [message.role for message in kept] == ["system", "user", "assistant"]
    assert kept[0].content == "Be short."


def test_no_more_tokens_than_asked_for(environment):
    done = ask(environment, "--max-tokens", "3", QUESTION)
    assert done.returncode == 0, done.stderr
    assert 0 < len(done.stdout.strip()) < len(ANSWER)


#: What may be wrong: settings that are changed, arguments, the exit code, and what is said of it.
WRONG = {
    "key": ({"PHIKIT_ENDPOINT_KEY": "wrong"}, [QUESTION], 1, "refuses the key"),
    "no such conversation": ({}, ["--conversation", "0" * 32, QUESTION], 2, "there is none of this name"),
    "no question": ({}, [" "], 2, "QUESTION: is empty"),
    "address": ({"PHIKIT_ENDPOINT_URI": "localhost:5001"}, [QUESTION], 2, "PHIKIT_ENDPOINT_URI"),
    "store": ({"PHIKIT_HISTORY": "postgres"}, [QUESTION], 2, "PHIKIT_HISTORY"),
    "too long": ({}, [QUESTION * 5000], 1, "too long for the model"),
    "no server": ({"PHIKIT_ENDPOINT_URI": "http://127.0.0.1:{port}/score"}, [QUESTION], 1, "cannot be reached"),
}


@pytest.mark.parametrize(("settings", "arguments", "code", "says"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_kept(environment, settings, arguments, code, says):
    settings = {name: value.format(port=free_port()) for name, value in settings.items()}
    done = ask(environment | {"PHIKIT_ENDPOINT_RETRIES": "1"} | settings, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret-key-1" not in done.stderr
    history = open_history(environment)
    assert history.list("local") == []
    history.close()


class Half(BaseHTTPRequestHandler):
    """A server that stops in the middle of an answer, and does not say why."""

    def do_GET(self) -> None:
        self.reply("application/json", json.dumps({"object": "list", "data": [{"id": "half", "object": "model"}]}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "delta": {"role": "assistant", "content": "Half of"}, "finish_reason": None}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "half", "choices": [choice]}
        self.reply("text/event-stream", f"data: {json.dumps(chunk)}\n\n")

    def reply(self, kind: str, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_half_an_answer_is_shown_and_not_kept(environment):
    with ThreadingHTTPServer(("127.0.0.1", 0), Half) as half:
        threading.Thread(target=half.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{half.server_address[1]}"
        done = ask(environment | {"PHIKIT_ENDPOINT_URI": f"{uri}/score"}, QUESTION)
        half.shutdown()
    assert (done.returncode, done.stdout) == (1, "Half of")
    assert done.stderr == f"{uri} broke the answer off; try again\n"
    history = open_history(environment)
    assert history.list("local") == []
    history.close()
