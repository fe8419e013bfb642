"""The onnx engine by itself: what it generates, alone and in company, and how it ends.

python -m pytest tests/serving/test_onnx_engine.py
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from serving.engine import EngineFailed, Sampling
from serving.model_folder import read
from serving.onnx_engine import PIECE, OnnxEngine
from serving.onnx_session import OnnxSession, Shape
from serving.settings import Settings
from tests.serving.engine_driver import driving, prompts_of, the_same_alone_and_in_company
from tests.serving.models import ROOT, make_random_model

SMALL = Settings(slots=6, context=700)


def export(model: Path) -> None:
    command = [sys.executable, "-m", "serving.export_onnx", str(model), "--precision", "float32"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def folder(random_model, tmp_path_factory):
    """A random model with its float32 export: answers run to their limit, and rounding decides nothing."""
    target = tmp_path_factory.mktemp("onnx") / "model"
    shutil.copytree(random_model, target)
    export(target)
    return read(target)


@pytest.fixture(scope="module")
def driver(folder):
    with driving(OnnxEngine(folder, "float32", SMALL)) as running:
        yield running


@pytest.fixture(scope="module")
def prompts(folder) -> dict[int, list[int]]:
    return prompts_of(folder, PIECE)


def test_a_sequence_is_the_same_alone_and_among_others(driver, prompts):
    the_same_alone_and_in_company(driver, prompts)


def by_transformers(model: Path, prompts: Iterable[list[int]]) -> list[list[int]]:
    """Greedy answers of 24 tokens from the safetensors."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model).eval()
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        found.append(whole[0, len(prompt) :].tolist())
    return found


def test_it_generates_what_transformers_generates(driver, folder, prompts):
    # the long prompt, which is read in pieces, among them
    assert [driver.answer(prompt) for prompt in prompts.values()] == by_transformers(folder.weights, prompts.values())


def test_a_sliding_window_is_that_of_the_model(tmp_path, prompts):
    # Phi-3-mini-4k has one
    model = make_random_model(tmp_path / "model", sliding_window=32)
    export(model)
    folder = read(model)
    with driving(OnnxEngine(folder, "float32", SMALL)) as other:
        found = [other.answer(prompt) for prompt in prompts.values()]
        together = other.together(prompts)
    assert found == by_transformers(folder.weights, prompts.values())
    assert list(together.values()) == found


def test_longrope_ends_where_neighbours_would_change_each_other(tmp_path, prompts):
    # Phi-3.5 has it: rotary positions change for a whole pass once its longest row is past this length
    width = 128 // 4 // 2
    factors = {"short_factor": [1 + 0.05 * n for n in range(width)], "long_factor": [1.0 + 2 * n for n in range(width)]}
    model = make_random_model(
        tmp_path / "model",
        original_max_position_embeddings=128,
        rope_scaling={"type": "longrope", **factors},
    )
    export(model)
    folder = read(model)
    engine = OnnxEngine(folder, "float32", Settings(slots=6, context=2048))
    assert engine.context == 128
    short = {key: (prompt * 9)[: 20 * (place + 1)] for place, (key, prompt) in enumerate(prompts.items()) if place < 5}
    with driving(engine) as other:
        assert list(other.together(short).values()) == by_transformers(folder.weights, short.values())


def test_a_seed_draws_the_same_whatever_else_goes_on(driver, prompts):
    drawn = {"temperature": 1.0, "top_p": 0.9, "seed": 7}
    alone = driver.answer(prompts[0], **drawn)
    others = [driver.submit(prompts[key], temperature=1.5) for key in (10, 20, 99)]
    assert driver.answer(prompts[0], **drawn) == alone
    driver.wait(*others)
    assert driver.answer(prompts[0], temperature=1.0, seed=8) != alone
    assert driver.answer(prompts[0], temperature=1.0) != driver.answer(prompts[0], temperature=1.0)


def test_an_end_token_ends_a_sequence_and_is_delivered(driver, folder, prompts):
    tokens = driver.answer(prompts[0])
    with driving(OnnxEngine(dataclasses.replace(folder, ends=frozenset({tokens[3]})), "float32", SMALL)) as other:
        found = other.answer(prompts[0])
    end = tokens.index(tokens[3])
    assert found == tokens[: end + 1]
    assert list(other.ended.values()) == ["stop"]
    assert driver.ended[1] == "length"


def test_cancelling_frees_the_slot_at_once(driver, prompts):
    held = [driver.submit(prompts[0], max_tokens=600) for _ in range(driver.engine.slots)]
    while not all(driver.tokens[number] for number in held):
        driver.take()
    for number in held[::2]:
        driver.engine.cancel(number)
    driver.wait(*held[::2])
    assert {driver.ended[number] for number in held[::2]} == {"cancelled"}
    alone = driver.answer(prompts[10])
    # before its prompt was read, and one that is long gone
    unread = driver.submit(prompts[99])
    driver.engine.cancel(unread)
    driver.engine.cancel(held[0])
    driver.engine.cancel(123456)
    driver.wait(unread)
    assert driver.ended[unread] in ("cancelled", "length")
    for number in held[1::2]:
        driver.engine.cancel(number)
    driver.wait(*held)
    # the rows that moved in between held what they should
    assert driver.answer(prompts[10]) == alone


def test_what_does_not_fit_is_not_taken(driver, prompts):
    with pytest.raises(ValueError, match="context of 700"):
        driver.submit(prompts[0], max_tokens=700)
    with pytest.raises(ValueError, match="0 "):
        driver.submit([])


def test_memory_stays_flat_over_many_sequences(driver, prompts):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(5):
        driver.together(prompts)
    before = resident()
    for _ in range(40):
        driver.together(prompts, max_tokens=8)
    assert resident() - before < 8e6


def test_a_freed_slot_gives_its_memory_back(folder):
    session = OnnxSession(folder.onnx["float32"], Shape(folder.onnx["float32"]), slots=3, context=512, threads=1)
    for row in range(3):
        session.prefill(row, list(range(400)), 0)
    held = session.row(1)
    assert all(part.any() for part in held)
    around = [part.copy() for row in (0, 2) for part in session.row(row)]
    session.release(1)
    # memory that the system has taken back reads as zeros; the rows around it are as they were
    assert not any(part.any() for part in held)
    now = [part for row in (0, 2) for part in session.row(row)]
    assert all((was == part).all() for was, part in zip(around, now, strict=True))


def test_the_cache_keeps_to_its_memory(folder):
    token = 2 * 4 * 2 * 2 * 32
    few = OnnxEngine(folder, "float32", Settings(slots=16, context=512, kv_memory=3.5 * 512 * token / 2**30))
    assert (few.slots, few.context, few.capacity) == (3, 512, 3 * 512)
    short = OnnxEngine(folder, "float32", Settings(slots=16, context=512, kv_memory=100 * token / 2**30))
    assert (short.slots, short.context) == (1, 100)
    assert OnnxEngine(folder, "float32", Settings(context=10**6)).context == folder.context


def test_it_dies_loudly(folder, prompts):
    engine = OnnxEngine(folder, "float32", SMALL)
    with driving(engine) as running:
        assert engine.alive
        # no such token in the vocabulary: the graph itself refuses, in the middle of others' work
        held = running.submit(prompts[0], max_tokens=600)
        running.take()
        bad = running.submit([10**6])
        running.wait(held, bad)
        assert {running.ended[held], running.ended[bad]} == {"failed"}
        assert not engine.alive
        with pytest.raises(EngineFailed):
            running.submit(prompts[0])
    engine.stop()


def test_it_dies_with_whoever_takes_its_tokens(folder, prompts):
    taken = []

    def refuse(steps):
        taken.append(steps)
        raise RuntimeError("the loop is closed")

    others = threading.enumerate()
    engine = OnnxEngine(folder, "float32", SMALL)
    engine.start(refuse)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "engine" and thread not in others]
    engine.submit(1, prompts[0], Sampling(max_tokens=600))
    thread.join(60)
    assert not engine.alive
    assert [steps[0].finish for steps in taken] == [None, "failed"]
    with pytest.raises(EngineFailed):
        engine.submit(2, prompts[0], Sampling(max_tokens=3))
    engine.stop()


def test_stopping_ends_what_is_in_work(folder, prompts):
    engine = OnnxEngine(folder, "float32", SMALL)
    with driving(engine) as running:
        held = running.submit(prompts[0], max_tokens=600)
        running.take()
    running.wait(held)
    assert running.ended[held] == "cancelled"
    assert not engine.alive


@pytest.mark.parametrize("damage", ["graph", "config", "shape"])
def test_a_damaged_export_is_refused(folder, tmp_path, damage):
    broken = tmp_path / "onnx-float32"
    shutil.copytree(folder.onnx["float32"], broken)
    if damage == "graph":
        (broken / "model.onnx").write_bytes(b"no graph")
    elif damage == "config":
        (broken / "genai_config.json").write_text("{}")
    else:
        # as if the graph were another model's
        config = json.loads((broken / "genai_config.json").read_text())
        config["model"]["decoder"]["head_size"] = 16
        (broken / "genai_config.json").write_text(json.dumps(config))
    model = dataclasses.replace(folder, onnx={"float32": broken})
    with pytest.raises(EngineFailed, match=str(broken)):
        OnnxEngine(model, "float32", SMALL).start(lambda steps: None)


def test_serving_an_export_needs_no_torch_and_reports_to_nobody(folder, tmp_path):
    code = f"""
import sys
sys.modules.update(torch=None, transformers=None)
from pathlib import Path
from serving.model_folder import read
from serving.engines import choose
from serving.chat import Chat
from serving.engine import Sampling
from serving.settings import Settings
import queue
model = read(Path({str(folder.path)!r}))
engine, steps = choose(model, Settings(context=256)), queue.SimpleQueue()
engine.start(steps.put)
engine.submit(1, Chat(model).prompt([{{"role": "user", "content": "Hello"}}]), Sampling(max_tokens=3))
while not any(step.finish for step in steps.get(timeout=60)): pass
engine.stop()
print(engine.name, engine.precision)
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "onnx float32\n", done.stderr
    # onnxruntime would keep an id of this machine there, for its reports
    assert list(tmp_path.iterdir()) == []
