"""The transformers engine by itself: what it generates, alone and in company, how it ends, and what it holds.

python -m pytest tests/serving/test_transformers_engine.py
"""

import dataclasses
import math
import os
import random
import shutil
import threading
from pathlib import Path

import pytest

from serving.chat import Chat
from serving.engine import EngineFailed
from serving.model_folder import read
from serving.settings import Settings
from serving.transformers_engine import ASIDE, PAGE, PIECE, Room, TransformersEngine, divide
from tests.serving.engine_driver import driving, prompts_of, the_same_alone_and_in_company

SMALL = Settings(slots=6, context=700)
MIB = 1 / 1024


@pytest.fixture(scope="module")
def folder(random_model):
    """A random model: answers run to their limit, and rounding decides nothing."""
    return read(random_model)


@pytest.fixture(scope="module")
def driver(folder):
    with driving(TransformersEngine(folder, SMALL)) as running:
        yield running


@pytest.fixture(scope="module")
def prompts(folder) -> dict[int, list[int]]:
    return prompts_of(folder, PIECE)


def test_a_sequence_is_the_same_alone_and_among_others(driver, prompts):
    the_same_alone_and_in_company(driver, prompts)


def test_it_generates_what_generate_generates(driver, folder, prompts):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder.weights).eval()
    for prompt in prompts.values():
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert driver.answer(prompt) == whole[0, len(prompt) :].tolist()


def test_the_trained_model_answers_as_its_data_does(tiny_model):
    folder = read(tiny_model)
    chat = Chat(folder)
    question = [{"role": "user", "content": "Who founded Microsoft?"}]
    with driving(TransformersEngine(folder, SMALL)) as running:
        tokens = running.answer(chat.prompt(question), max_tokens=60)
    assert list(running.ended.values()) == ["stop"]
    assert tokens[-1] in folder.ends
    assert "Bill Gates and Paul Allen" in chat.text(tokens)


def test_others_go_on_while_a_long_prompt_is_read(driver, prompts):
    held = driver.submit(prompts[0], max_tokens=100)
    driver.take()
    long = driver.submit(prompts[99], max_tokens=1)
    before = len(driver.tokens[held])
    driver.wait(long)
    # it is read in three pieces, each of which brings the other a token
    assert len(driver.tokens[held]) - before >= 3
    driver.engine.cancel(held)
    driver.wait(held)


def test_a_seed_draws_the_same_whatever_else_goes_on(driver, prompts):
    drawn = {"temperature": 1.0, "top_p": 0.9, "seed": 7}
    alone = driver.answer(prompts[0], **drawn)
    greedy = driver.answer(prompts[20])
    others = [driver.submit(prompts[key], temperature=1.5) for key in (10, 99)]
    beside = driver.submit(prompts[20])
    assert driver.answer(prompts[0], **drawn) == alone
    assert driver.wait(beside, *others)[0] == greedy
    assert driver.answer(prompts[0], temperature=1.0, seed=8) != alone
    assert driver.answer(prompts[0], temperature=1.0) != driver.answer(prompts[0], temperature=1.0)


def test_an_end_token_ends_a_sequence_and_is_delivered(driver, folder, prompts):
    tokens = driver.answer(prompts[0])
    with driving(TransformersEngine(dataclasses.replace(folder, ends=frozenset({tokens[3]})), SMALL)) as other:
        found = other.answer(prompts[0])
        # the last token allowed: it ended by itself all the same
        other.answer(prompts[0], max_tokens=len(found))
        other.answer(prompts[0], max_tokens=1)
    assert found == tokens[: tokens.index(tokens[3]) + 1]
    assert list(other.ended.values())[:2] == ["stop", "stop"]
    assert len(other.tokens[3]) == 1


def test_cancelling_frees_the_slot_and_the_pages(driver, prompts):
    free = driver.engine._manager.batch_processor.cache.compute_free_capacity
    held = [driver.submit(prompts[0], max_tokens=600) for _ in range(driver.engine.slots)]
    while not all(driver.tokens[number] for number in held):
        driver.take()
    for number in held:
        driver.engine.cancel(number)
        driver.engine.cancel(number)
    driver.wait(*held)
    assert {driver.ended[number] for number in held} == {"cancelled"}
    assert free() == 1
    # before its prompt was read, and those that are long gone
    for _ in range(50):
        unread = driver.submit(prompts[99], max_tokens=50)
        driver.engine.cancel(unread)
        driver.engine.cancel(held[0])
        driver.engine.cancel(123456)
        driver.wait(unread)
        assert driver.ended[unread] == "cancelled"
    assert free() == 1


def test_everything_is_delivered_on_one_thread(folder, prompts):
    engine = TransformersEngine(folder, SMALL)
    with driving(engine) as running:
        threads = []
        deliver = engine._deliver
        engine._deliver = lambda steps: (threads.append(threading.get_ident()), deliver(steps))
        held = running.submit(prompts[0], max_tokens=600)
        running.take()
        engine.cancel(held)
        running.wait(held)
    assert len(threads) > 1
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


def test_what_does_not_fit_is_not_taken(driver, prompts):
    with pytest.raises(ValueError, match="context of 700"):
        driver.submit(prompts[0], max_tokens=700)
    with pytest.raises(ValueError, match="0 "):
        driver.submit([])


def test_memory_stays_flat_over_many_sequences(driver, prompts):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(5):
        driver.together(prompts, temperature=1.0)
    before = resident()
    for _ in range(40):
        driver.together(prompts, max_tokens=8, temperature=1.0)
    assert resident() - before < 8e6
    manager = driver.engine._manager
    scheduler, cache = manager.batch_processor.scheduler, manager.batch_processor.cache
    kept = [
        driver.engine._open,
        manager.output_router.result_handlers,
        scheduler.active_requests,
        scheduler.waiting_requests,
        scheduler.waiting_requests_order,
        scheduler._requests_to_cancel,
        *(allocator.block_table for allocator in cache.cache_allocators.values()),
    ]
    assert [len(one) for one in kept] == [0] * len(kept)
    assert manager.output_router.output_queue.empty()


@pytest.mark.parametrize("memory", [7, 40, 163, 5000])
def test_the_room_holds_whatever_adds_up_to_its_capacity(memory):
    chance = random.Random(memory)
    for slots in (1, 2, 5, 16):
        room = divide(memory * PAGE * 10, 10, slots, 700)
        assert (room.pages + ASIDE) * PAGE <= memory * PAGE
        assert 1 <= room.slots <= slots
        assert 1 <= room.context <= min(700, room.capacity)
        for _ in range(300):
            # lengths one past a page round up the most
            lengths = []
            while len(lengths) < room.slots and sum(lengths) < room.capacity:
                left = min(room.context, room.capacity - sum(lengths))
                lengths.append(min(left, chance.choice([1, PAGE + 1, 3 * PAGE + 1, left, chance.randint(1, left)])))
            assert sum(math.ceil(length / PAGE) for length in lengths) <= room.pages


def test_much_memory_is_not_taken_for_its_own_sake():
    assert divide(2**40, 10, 16, 700) == Room(pages=16 * 22, slots=16, context=700, capacity=16 * 700)
    with pytest.raises(EngineFailed, match="PHIKIT_SERVE_KV_MEMORY"):
        divide(PAGE * 10, 10, 16, 700)


def test_sequences_that_fill_the_cache_all_end(folder, prompts):
    with driving(TransformersEngine(folder, dataclasses.replace(SMALL, kv_memory=0.8 * MIB))) as running:
        engine = running.engine
        assert engine.capacity < engine.slots * engine.context
        assert engine.slots > 1
        # as many tokens as there may be, each sequence one token into a page
        lengths = [1 + PAGE] * (engine.slots - 1)
        lengths.append(min(engine.context, engine.capacity - sum(lengths)))
        for _ in range(3):
            numbers = [running.submit(prompts[99][:10], max_tokens=length - 10) for length in lengths]
            found = running.wait(*numbers)
            assert [len(tokens) + 10 for tokens in found] == lengths
        assert set(running.ended.values()) == {"length"}


def test_it_dies_loudly_and_says_no_prompt(folder, prompts, caplog, capfd):
    engine = TransformersEngine(folder, SMALL)
    with driving(engine) as running:
        assert engine.alive
        # no such token in the vocabulary: the model itself refuses, in the middle of others' work
        held = running.submit(prompts[0], max_tokens=600)
        running.take()
        bad = running.submit([10**6 + 7])
        running.wait(held, bad)
        assert {running.ended[held], running.ended[bad]} == {"failed"}
        assert not engine.alive
        with pytest.raises(EngineFailed):
            running.submit(prompts[0])
    engine.stop()
    assert "Error in generation loop" in caplog.text
    assert str(10**6 + 7) not in caplog.text + "".join(capfd.readouterr())


def test_stopping_ends_what_is_in_work(folder, prompts):
    engine = TransformersEngine(folder, SMALL)
    assert not engine.alive
    with driving(engine) as running:
        held = [running.submit(prompts[key], max_tokens=600) for key in (0, 10)]
        running.take()
        held.append(running.submit(prompts[99], max_tokens=90))
    running.wait(*held)
    assert {running.ended[number] for number in held} == {"cancelled"}
    assert not engine.alive
    engine.cancel(held[0])
    with pytest.raises(EngineFailed):
        running.submit(prompts[0])


@pytest.mark.parametrize("damage", ["weights", "config"])
def test_a_damaged_model_is_refused(folder, tmp_path, damage):
    broken = tmp_path / "weights"
    shutil.copytree(folder.weights, broken)
    if damage == "weights":
        (broken / "model.safetensors").write_bytes(b"no weights")
    else:
        (broken / "config.json").write_text('{"model_type": "none such"}')
    with pytest.raises(EngineFailed, match=str(broken)):
        TransformersEngine(dataclasses.replace(folder, weights=broken), SMALL).start(lambda steps: None)


def test_it_serves_in_bfloat16_when_told_to(folder, prompts):
    with driving(TransformersEngine(folder, dataclasses.replace(SMALL, precision="bfloat16"))) as running:
        assert running.engine.precision == "bfloat16"
        assert next(running.engine._manager.model.parameters()).element_size() == 2
        assert len(running.answer(prompts[0])) == 24
