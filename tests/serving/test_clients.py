"""Real clients against a real server, on both engines: openai, MLflow's own, and the tutorial's request by urllib."""

import asyncio
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from serving.chat import Chat
from serving.model_folder import read
from tests.serving.server import ANSWER, MESSAGES, QUESTION, Server, serving

#: Hot enough for answers to differ from seed to seed.
HOT = {"temperature": 2.0, "max_tokens": 16}

#: The tutorial's request, letter for letter; only the address and the key are those of its workspace.
TUTORIAL = (
    b'{"input_data": ["Who founded Microsoft?"], "params": {"temperature": 0.7, "max_new_tokens": 128, '
    b'"do_sample": true, "return_full_text": true}}'
)


@pytest.fixture(scope="module", params=["transformers", "onnx"])
def server(request, exported_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with serving(exported_model, folder, engine=request.param, precision="float32", slots=8) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def prompt_tokens(exported_model) -> int:
    return len(Chat(read(exported_model)).prompt(MESSAGES))


def complete(client: openai.OpenAI, **changed: object):
    return client.chat.completions.create(**{"model": "phikit", "messages": MESSAGES, **changed})


def text(client: openai.OpenAI, **changed: object) -> str:
    return complete(client, **changed).choices[0].message.content


def pieces(client: openai.OpenAI, **changed: object) -> tuple[str, list]:
    """The text of a stream, and all of its chunks."""
    chunks = list(complete(client, stream=True, **changed))
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), chunks


def score(server: Server, body: bytes | dict) -> list[str]:
    """As the tutorial's flow asks, with the standard library alone."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/score", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def test_the_engine_is_the_one_that_was_asked_for(server, request):
    told = server.ask("/version").json
    assert told["engine"] == {"name": request.node.callspec.params["server"], "precision": "float32"}
    assert told["model"]["name"] == "phikit"


def test_a_whole_answer(client, prompt_tokens):
    answer = complete(client)
    assert answer.object == "chat.completion"
    assert answer.model == "phikit"
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", ANSWER)
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert answer.usage.prompt_tokens == prompt_tokens
    assert answer.usage.completion_tokens > 5
    assert answer.usage.total_tokens == prompt_tokens + answer.usage.completion_tokens


def test_a_stream_is_the_whole_answer_in_pieces(client):
    streamed, chunks = pieces(client)
    assert streamed == ANSWER
    # (an engine that is faster than the loop has several tokens in one piece)
    assert len(chunks) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert not [chunk for chunk in chunks if chunk.usage]


def test_a_stream_counts_as_the_whole_answer_does(client):
    _, chunks = pieces(client, stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage.model_dump() == complete(client).usage.model_dump()
    assert not [chunk for chunk in chunks[:-1] if chunk.usage]


def test_a_stream_on_the_wire(server):
    answer = server.ask("/v1/chat/completions", {"model": "phikit", "messages": MESSAGES, "stream": True})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = answer.body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])


def test_an_asynchronous_client(server):
    async def several() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:

            async def one() -> str:
                stream = await client.chat.completions.create(model="phikit", messages=MESSAGES, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one() for _ in range(12)))

    assert asyncio.run(several()) == [ANSWER] * 12


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_length_limit(client, field):
    answer = complete(client, **{field: 3})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].message.content == "Microsoft was founded"
    streamed, chunks = pieces(client, **{field: 3})
    assert streamed == "Microsoft was founded"
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("stop", ["Gates", ["never said", " Gates"], ["Paul", "Bill Gates", "Allen"], "."])
def test_stop_strings_leave_nothing_of_themselves(client, stop):
    stops = [stop] if isinstance(stop, str) else stop
    expected = ANSWER[: min(ANSWER.find(each) for each in stops if each in ANSWER)].rstrip()
    answer = complete(client, stop=stop)
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason == "stop"
    streamed, chunks = pieces(client, stop=stop)
    assert streamed == expected
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_seed_draws_the_same_whatever_else_goes_on(client):
    alone = {seed: text(client, seed=seed, **HOT) for seed in range(3)}
    assert len(set(alone.values())) > 1
    assert {seed: text(client, seed=seed, **HOT) for seed in range(3)} == alone
    with ThreadPoolExecutor(12) as pool:
        noise = [pool.submit(text, client, **HOT) for _ in range(8)]
        crowded = {seed: pool.submit(text, client, seed=seed, **HOT) for seed in alone}
        streams = {seed: pool.submit(pieces, client, seed=seed, **HOT) for seed in alone}
        assert {seed: answer.result() for seed, answer in crowded.items()} == alone
        assert {seed: answer.result()[0] for seed, answer in streams.items()} == alone
        assert len({answer.result() for answer in noise}) > 1


def test_temperature_0_is_greedy_and_what_goes_without_saying(client):
    assert {text(client, temperature=0), text(client, temperature=0, seed=3), text(client)} == {ANSWER}
    assert text(client, temperature=2, top_p=1e-6) == ANSWER


def test_fields_whose_value_changes_nothing(client):
    neutral = {"n": 1, "frequency_penalty": 0.0, "presence_penalty": 0, "logprobs": False, "user": "someone"}
    assert text(client, **neutral) == ANSWER


def test_content_as_parts(client):
    parts = [{"type": "text", "text": "Who founded"}, {"type": "text", "text": " Microsoft?"}]
    assert text(client, messages=[{"role": "user", "content": parts}]) == ANSWER


def test_a_conversation_of_several_turns(client):
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}, *MESSAGES]
    assert text(client, messages=turns)
    assert complete(client, messages=turns).usage.prompt_tokens > complete(client).usage.prompt_tokens


def test_the_list_of_models(client):
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == ("phikit", "phikit")
    assert client.models.retrieve("phikit") == model
    with pytest.raises(openai.NotFoundError, match="called phikit"):
        client.models.retrieve("microsoft/phi-4")


@pytest.mark.parametrize(
    ("changed", "error", "field"),
    [
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"max_tokens": -5}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "max_tokens"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, openai.BadRequestError, "messages"),
        ({"n": 2}, openai.BadRequestError, "n"),
        ({"extra_body": {"top_k": 3}}, openai.BadRequestError, "top_k"),
        ({"model": "gpt-5"}, openai.NotFoundError, "model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_are_the_clients_own_errors(client, changed, error, field, stream):
    with pytest.raises(error) as refused:
        complete(client, stream=stream, **changed)
    assert refused.value.param == field
    assert field in refused.value.message


def test_the_tutorials_request_byte_for_byte(server):
    assert score(server, TUTORIAL) == [f"{QUESTION} {ANSWER}"]


def test_score_takes_a_text_several_texts_or_a_conversation(server):
    greedy = {"temperature": 0}
    assert score(server, {"input_data": QUESTION}) == [ANSWER]
    assert score(server, {"input_data": QUESTION, "params": greedy}) == [ANSWER]
    assert score(server, {"input_data": MESSAGES, "params": greedy}) == [ANSWER]
    several = [QUESTION, "Where is Microsoft's headquarters?", QUESTION]
    each = [score(server, {"input_data": question})[0] for question in several]
    assert score(server, {"input_data": several, "params": greedy}) == each
    assert each[0] != each[1]


def test_score_repeats_the_question_on_demand(server):
    def ask(data: object, full: bool) -> list[str]:
        return score(server, {"input_data": data, "params": {"return_full_text": full}})

    assert ask(QUESTION, False) == [ANSWER]
    assert ask(QUESTION, True) == [f"{QUESTION} {ANSWER}"]
    assert ask([QUESTION] * 2, True) == [f"{QUESTION} {ANSWER}"] * 2
    assert ask([{"role": "system", "content": "Be short."}, *MESSAGES], True)[0].startswith(f"{QUESTION} ")


def test_score_draws_by_its_params(server):
    def ask(**params: object) -> str:
        return score(server, {"input_data": QUESTION, "params": {"temperature": 2.0, "max_new_tokens": 16, **params}})[
            0
        ]

    assert ask(seed=1) == ask(seed=1)
    assert len({ask(seed=seed) for seed in range(3)}) > 1
    assert len({ask(seed=-1) for _ in range(4)}) > 1
    assert ask(do_sample=False) == ANSWER
    assert ask(max_new_tokens=3, temperature=0) == "Microsoft was founded"


def test_mlflows_scoring_client(server):
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", server.port)
    client.wait_server_ready(timeout=30)
    assert client.get_version()
    rows = pd.DataFrame({"messages": [MESSAGES, MESSAGES]})
    assert client.invoke(rows).get_predictions(predictions_format="ndarray").ravel().tolist() == [ANSWER] * 2
    params = {"max_new_tokens": 3, "return_full_text": True, "temperature": 0.0}
    (told,) = client.invoke(rows[:1], params).get_predictions(predictions_format="ndarray").ravel().tolist()
    assert told == f"{QUESTION} Microsoft was founded"


def test_mlflows_deployment_client(server, monkeypatch):
    from mlflow.deployments import get_deploy_client

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_BASE", f"{server.url}/v1")
    answer = get_deploy_client("openai").predict(endpoint="phikit", inputs={"messages": MESSAGES})
    assert answer["choices"][0]["message"]["content"] == ANSWER


def test_nothing_is_left_in_work(server):
    server.until_idle()
    assert server.metrics()["phikit_kv_tokens_reserved"] == 0
    assert "Traceback" not in server.err
