"""The exported model: what is in its folder, and that MLflow answers from it as the model itself does.

python -m pytest tests/training/test_export.py
"""

import dataclasses
import html
import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from chat_model import PARAMS
from encoding import prompt_ids
from evaluation import generate
from export import REQUIREMENTS, export
from model import load_model, load_tokenizer
from recipe import load_recipe
from tests.training.program import SHORT, sample_rows
from tests.training.tracking_server import free_port, program

ROOT = Path(__file__).parents[2]
LENGTH = 12


@pytest.fixture(scope="module")
def trained(phi_folder):
    """A model in memory whose answers differ, with its tokenizer and recipe."""
    import torch

    recipe = load_recipe("tiny_cpu", {"model_name_or_path": str(phi_folder)})
    tokenizer = load_tokenizer(recipe.model, [])
    model = load_model(recipe.model, tokenizer, 0)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    # what lies in a folder of this machine has a name of its own elsewhere
    return (
        model,
        tokenizer,
        dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, model_name_or_path="m")),
    )


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "model"
    export(*trained[:2], target, trained[2], {"run": "one", "parameters": 5})
    return target


@pytest.fixture(scope="module")
def questions() -> list[list[dict[str, str]]]:
    """Conversations that wait for an answer, some after several turns, one of them with a system message."""
    held_out = [row["messages"][:-1] for row in sample_rows("held_out.jsonl", 99)]
    chats = [chat for chat in held_out if len(chat) > 1][:4] + held_out[:8]
    assert max(map(len, chats)) > 2
    return [*chats, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why? 👩‍🚀 مرحبا"}]]


@pytest.fixture(scope="module")
def answers(trained, questions) -> list[str]:
    """What the model itself answers, greedily, one by one."""
    model, tokenizer, _ = trained
    found = [generate(model, tokenizer, [prompt_ids(chat, tokenizer)], LENGTH)[0] for chat in questions]
    assert len(set(found)) > 5
    return found


@pytest.fixture(scope="module")
def loaded(exported):
    import mlflow

    return mlflow.pyfunc.load_model(str(exported))


def rows(chats):
    return [{"messages": chat} for chat in chats]


# ---- the folder


def test_signature_and_params(finished):
    saved = yaml.safe_load((finished.model / "MLmodel").read_text())
    (column,) = json.loads(saved["signature"]["inputs"])
    assert (column["name"], column["type"], column["required"]) == ("messages", "array", True)
    assert {name: field["type"] for name, field in column["items"]["properties"].items()} == {
        "role": "string",
        "content": "string",
    }
    params = {param["name"]: param["default"] for param in json.loads(saved["signature"]["params"])}
    assert params == PARAMS
    assert saved["metadata"]["run"] == finished.name
    assert {"recipe", "model", "data.train.sha256", "code_version", "version.torch"} <= saved["metadata"].keys()
    example = json.loads((finished.model / "serving_input_example.json").read_text())
    assert "Who founded Microsoft?" in json.dumps(example)


def locked() -> dict[str, str]:
    """The versions of docker/runtime.lock and of the CPU's torch, without local parts."""
    text = "".join((ROOT / "docker" / name).read_text() for name in ("torch-cpu.lock", "runtime.lock"))
    lines = [Requirement(line) for line in re.findall(r"^(\w[^\\#\n]*==[^\\#\n]*)", text, re.M)]
    return {
        line.name.lower(): str(line.specifier).removeprefix("==").partition("+")[0]
        for line in lines
        if line.marker is None or line.marker.evaluate()
    }


def test_requirements_are_the_locks(finished):
    lines = (finished.model / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in lines] == list(REQUIREMENTS)
    versions = locked()
    assert lines == [f"{name}=={versions[name.lower()]}" for name in REQUIREMENTS]
    conda = yaml.safe_load((finished.model / "conda.yaml").read_text())
    (pip,) = [item["pip"] for item in conda["dependencies"] if isinstance(item, dict)]
    assert sorted(pip) == sorted(lines)


def test_weights_are_safetensors_and_nothing_is_pickled(finished):
    files = [path for path in finished.model.rglob("*") if path.is_file()]
    assert [path.name for path in files if path.stat().st_size > 1_000_000] == ["model.safetensors"]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".txt", ".yaml", ".py", ""}
    assert {path.name for path in files if not path.suffix} == {"MLmodel"}
    weights = finished.model / "artifacts" / "weights"
    template = (weights / "chat_template.jinja").read_text()
    assert "<|assistant|>" in template and "'role': 'system'" in template, "the template, with the tutorial's system"
    assert (weights / "tokenizer.json").is_file()


def test_no_path_of_this_machine_is_in_any_file(finished, exported, phi_folder):
    here = [Path.home(), ROOT, Path(sys.prefix), finished.program.folder, phi_folder, exported.parent, Path("/tmp")]
    for folder in (finished.model, exported):
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert [str(place) for place in here if f"{place}/".encode() in content] == [], path


def test_export_leaves_nothing_beside_and_replaces_an_older_one(trained, tmp_path):
    target = tmp_path / "model"
    for run in ("one", "two"):
        export(*trained[:2], target, trained[2], {"run": run})
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert yaml.safe_load((target / "MLmodel").read_text())["metadata"] == {"run": run}


# ---- in a process of Python


def test_pyfunc_answers_as_the_model_itself(loaded, questions, answers):
    params = {"max_new_tokens": LENGTH}
    assert loaded.predict(rows(questions), params=params) == answers
    assert [loaded.predict(rows([chat]), params=params)[0] for chat in questions] == answers


def test_exported_run_answers_as_its_own_model(finished, questions):
    import mlflow
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = finished.model / "artifacts" / "weights"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(weights), AutoTokenizer.from_pretrained(weights)
    tuned = mlflow.pyfunc.load_model(str(finished.model))
    own = [generate(model, tokenizer, [prompt_ids(chat, tokenizer)], LENGTH)[0] for chat in questions[:5]]
    assert tuned.predict(rows(questions[:5]), params={"max_new_tokens": LENGTH}) == own
    # and it is the tuned model: the report shows the same answer to the same question
    first = json.loads(finished.program.held_out.read_text().splitlines()[0])["messages"]
    (answer,) = tuned.predict(rows([first[:-1]]), params={"max_new_tokens": SHORT["eval_max_new_tokens"]})
    assert f"<td>{answer}</td>" in (finished.folder / "report.html").read_text().replace(' class="match"', "")


def test_the_base_model_is_kept_beside_it(finished):
    import mlflow

    held_out = [json.loads(line)["messages"] for line in finished.program.held_out.read_text().splitlines()]
    params = {"max_new_tokens": SHORT["eval_max_new_tokens"]}
    base = mlflow.pyfunc.load_model(str(finished.folder / "base")).predict(rows([held_out[0][:-1]]), params=params)
    tuned = mlflow.pyfunc.load_model(str(finished.model)).predict(rows([held_out[0][:-1]]), params=params)
    report = html.unescape((finished.folder / "report.html").read_text())
    assert base != tuned
    assert base[0].strip() in report
    assert yaml.safe_load((finished.folder / "base" / "MLmodel").read_text())["metadata"]["base"] == "True"


def test_params_change_the_answer(loaded, questions):
    one = rows(questions[:1])
    greedy = loaded.predict(one, params={"max_new_tokens": LENGTH})
    drawn = [loaded.predict(one, params={"max_new_tokens": LENGTH, "temperature": 2.0, "seed": n}) for n in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert loaded.predict(one, params={"max_new_tokens": LENGTH, "temperature": 2.0, "do_sample": False}) == greedy
    tiny_top = {"max_new_tokens": LENGTH, "temperature": 2.0, "top_p": 1e-6}
    assert loaded.predict(one, params=tiny_top) == greedy
    full = loaded.predict(one, params={"max_new_tokens": LENGTH, "return_full_text": True})
    assert full == [f"{questions[0][-1]['content']} {greedy[0]}"]
    assert len(loaded.predict(one, params={"max_new_tokens": 3})[0]) < len(greedy[0])


# ---- over HTTP


@pytest.fixture(scope="module")
def url(exported, tmp_path_factory):
    port = free_port()
    command = ["mlflow", "models", "serve", "--model-uri", str(exported), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with program(command, f"http://127.0.0.1:{port}/ping", tmp_path_factory.mktemp("serve") / "log"):
        yield f"http://127.0.0.1:{port}/invocations"


def post(url: str, body: object) -> tuple[int, object]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_server_answers_as_the_model_itself(url, questions, answers):
    params = {"params": {"max_new_tokens": LENGTH}}
    bodies = {
        "inputs": {"inputs": rows(questions)},
        "dataframe_records": {"dataframe_records": rows(questions)},
        "dataframe_split": {"dataframe_split": {"columns": ["messages"], "data": [[chat] for chat in questions]}},
    }
    for name, body in bodies.items():
        assert post(url, body | params) == (200, {"predictions": answers}), name


def test_server_takes_params_and_their_defaults(url, loaded, questions):
    one = {"inputs": rows(questions[:1])}
    drawn = {"max_new_tokens": LENGTH, "temperature": 2.0, "seed": 7}
    assert post(url, one | {"params": drawn})[1]["predictions"] == loaded.predict(one["inputs"], params=drawn)
    assert post(url, one)[1]["predictions"] == loaded.predict(one["inputs"])


USER = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize(
    ("chat", "params", "words"),
    [
        ([USER], {"temperature": -1}, "temperature: -1.0 must be 0"),
        ([USER], {"temperature": "hot"}, "temperature"),
        ([USER], {"top_p": 0.0}, "top_p: 0.0 must be above 0"),
        ([USER], {"max_new_tokens": 0}, "max_new_tokens: 0 must be at least 1"),
        ([USER], {"max_new_tokens": 100_000}, "is over the model's 512"),
        ([USER], {"max_new_tokens": "many"}, "max_new_tokens"),
        ([USER], {"seed": 2**40}, "seed: "),
        ([USER, {"role": "assistant", "content": "So."}], {}, "conversation 0 must end with a user message"),
        ([], {}, "conversation 0 must end with a user message"),
        (
            [{"role": "wizard", "content": "x"}, USER],
            {},
            "message 0: role 'wizard' is not one of system, user, assistant",
        ),
        ([{"role": "user"}], {}, "content"),
        ([{"role": "user", "content": 5}], {}, "content"),
        ([{"role": "user", "content": "word " * 600}], {}, "is over the model's 512"),
    ],
)
def test_server_refuses_bad_input_with_400_and_says_why(url, chat, params, words):
    status, text = post(url, {"inputs": rows([chat]), "params": params})
    assert (status, words in text) == (400, True), text
    assert "Traceback" not in text


@pytest.mark.parametrize("body", [b"{", b"{}", b"[]", {"inputs": [{"message": []}]}, {"inputs": "Why?"}, {"what": 1}])
def test_server_refuses_other_bodies_with_400(url, body):
    assert post(url, body)[0] == 400
