"""The estimate of a training's memory, against what trainings really took.

python -m pytest tests/training/test_memory.py
"""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from errors import BadInput
from memory import GIB, SHAPES, Memory, Shape, estimate, recipe_memory
from tests.training.program import DEADLINE

MEASURE = Path(__file__).with_name("measure_memory.py")
LORA = {"use_peft": True, "lora_r": 16, "lora_target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]}
SDPA, EAGER = ({"attn_implementation": name} for name in ("sdpa", "eager"))
CHECKPOINTS = {"activation_checkpointing": True}


@cache
def measured(keys: str) -> dict[str, int]:
    result = subprocess.run(
        [sys.executable, str(MEASURE), keys], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def compared(*settings: dict) -> tuple[int, int]:
    """What the model and its training took beyond the process before it, and the estimate of the same, in bytes."""
    found = measured(json.dumps({key: value for part in settings for key, value in part.items()}))
    return found["peak"] - found["before"], found["total"] - found["before"]


@pytest.mark.parametrize(
    "settings",
    [(SDPA,), (EAGER,), (SDPA, CHECKPOINTS), (EAGER, CHECKPOINTS), (SDPA, LORA)],
    ids=["sdpa", "eager", "sdpa-checkpointing", "eager-checkpointing", "lora"],
)
def test_estimate_is_near_a_measured_run(settings):
    peak, estimated = compared(*settings)
    assert peak > 0.4 * GIB, "the model is large beside what else moves in a process"
    assert estimated == pytest.approx(peak, rel=0.3)


@pytest.mark.parametrize("attention", [SDPA, EAGER], ids=["sdpa", "eager"])
def test_estimate_knows_what_checkpointing_saves(attention):
    full, checkpointed = compared(attention), compared(attention, CHECKPOINTS)
    measured_saving, estimated_saving = (one - other for one, other in zip(full, checkpointed, strict=True))
    assert measured_saving > 0.1 * GIB
    assert estimated_saving == pytest.approx(measured_saving, rel=0.5)


def test_parts_of_a_known_model():
    shape = SHAPES["microsoft/Phi-3.5-mini-instruct"]
    values = {"dtype": "bfloat16", "max_length": 1, "per_device_train_batch_size": 1}
    full = estimate(shape, values, "cuda")
    assert (full.weights, full.gradients, full.optimizer) == tuple(shape.parameters * 2 * n for n in (1, 1, 2))
    on_cpu = estimate(shape, values, "cpu")
    assert on_cpu.weights == shape.parameters * 4, "half precision becomes float32 there"
    lora = estimate(shape, values | LORA, "cuda")
    # r rows and columns of each fused matrix in each of the 32 layers
    adapters = 16 * 32 * (3072 + 9216 + 2 * 3072 + 3072 + 16384 + 8192 + 3072)
    assert lora.gradients == adapters * 4 and lora.weights == full.weights + adapters * 4
    quantised = estimate(shape, values | LORA | {"load_in_4bit": True}, "cuda")
    assert quantised.weights < 0.35 * full.weights


def test_tiny_shape_is_that_of_the_model(tiny_config):
    from model import load_model, load_tokenizer, parameter_count
    from tests.training.program import SAMPLE

    rows = [json.loads(line) for line in (SAMPLE / "train.jsonl").read_text().splitlines()]
    tokenizer = load_tokenizer(tiny_config, (message["content"] for row in rows for message in row["messages"]))
    model = load_model(tiny_config, tokenizer, 0)
    assert Shape.of(model.config, parameter_count(model)) == SHAPES["tiny"]


def test_line_and_unknown_models():
    memory = Memory(GIB, 2 * GIB, 3 * GIB, 1024**2, 0)
    assert memory.line() == "about 6.0 GiB (weights 1.0 GiB, gradients 2.0 GiB, optimizer 3.0 GiB, activations 1 MiB)"
    with pytest.raises(BadInput, match="model mine: shape unknown"):
        recipe_memory({"model_name_or_path": "mine"})
