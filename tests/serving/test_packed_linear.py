"""Linear layers packed for oneDNN: what they compute, which layers are left alone, and what loading them takes.

python -m pytest tests/serving/test_packed_linear.py
"""

import subprocess
import sys

import pytest

from serving.model_folder import read
from tests.serving.models import ROOT


@pytest.fixture(scope="module")
def folder(random_model):
    return read(random_model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_packed_layers_compute_what_plain_ones_do(folder, tmp_path, dtype, tied):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from serving.packed_linear import SMALLEST, PackedLinear, pack

    torch.manual_seed(2)
    wide = {"hidden_size": 256, "intermediate_size": 512, "tie_word_embeddings": tied}
    config = AutoConfig.from_pretrained(folder.weights, **wide)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(tmp_path)
    plain, packed, unread = (AutoModelForCausalLM.from_pretrained(tmp_path).eval() for _ in range(3))
    sizes = [module.weight.numel() for module in packed.modules() if type(module) is torch.nn.Linear]
    worth = sum(size >= SMALLEST[packed.dtype] for size in sizes)
    assert (worth, len(sizes)) == ({"float32": 7, "bfloat16": 9}[dtype], 9)
    assert pack(packed, tmp_path) == pack(unread) == worth
    assert isinstance(packed.lm_head, PackedLinear)
    assert (packed.dtype, packed.device) == (plain.dtype, plain.device)
    for rows in (1, 2, 16, 33, 300):
        ids = torch.randint(0, config.vocab_size, (1, rows))
        with torch.inference_mode():
            expected, found, other = (model(ids).logits.float() for model in (plain, packed, unread))
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.03 if dtype == "bfloat16" else 1e-4)
        torch.testing.assert_close(found, other, rtol=0, atol=0)
        if dtype == "float32":
            assert found.argmax(-1).equal(expected.argmax(-1))


def test_layers_that_cannot_be_packed_stay_as_they_are():
    import torch

    from serving.packed_linear import PackedLinear, pack

    class Own(torch.nn.Linear):
        pass

    side = 512

    torch.manual_seed(3)
    model = torch.nn.ModuleDict(
        {
            "narrow": torch.nn.Linear(side, side).half(),
            "own": Own(side, side),
            "small": torch.nn.Linear(8, 4),
            "plain": torch.nn.Linear(side, side),
        }
    )
    rows = torch.randn(2, 3, side)
    expected = model["plain"](rows)
    assert pack(model) == 1
    assert {name for name, layer in model.items() if isinstance(layer, PackedLinear)} == {"plain"}
    torch.testing.assert_close(model["plain"](rows), expected)


def test_loading_holds_the_weights_once_and_no_more_cache_than_is_used(folder, tmp_path):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    wide = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4, "vocab_size": 4096}
    config = AutoConfig.from_pretrained(folder.weights, num_attention_heads=8, num_key_value_heads=8, **wide)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    code = f"""
import dataclasses, queue, resource
from pathlib import Path
import torch, transformers, transformers.models.phi3.modeling_phi3
import serving.batching, serving.packed_linear
from serving.engine import Sampling
from serving.model_folder import read
from serving.settings import Settings
from serving.transformers_engine import TransformersEngine
model = dataclasses.replace(read(Path({str(folder.path)!r})), weights=Path({str(tmp_path)!r}), ends=frozenset())
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
engine, steps = TransformersEngine(model, Settings(slots=16, context=2048, kv_memory=2)), queue.SimpleQueue()
engine.start(steps.put)
for number in range(4): engine.submit(number, list(range(100)), Sampling(max_tokens=8))
ended = 0
while ended < 4: ended += sum(step.finish == "length" for step in steps.get(timeout=60))
print(peak() - before, engine.capacity)
engine.stop()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    weights = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert weights > 200e6
    peak, capacity = map(int, done.stdout.split())
    assert capacity == 16 * 2048
    # a cache of 1 GiB, of which 1.4 % was used
    assert peak < 1.3 * weights
