"""What tests of the scoring server share: a model directory that has learned the sample, and one that knows nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.training.program import SAMPLE, TRAINING, sample_rows

ROOT = Path(__file__).parents[2]
QUESTION = "Who founded Microsoft?"
ANSWER = "Microsoft was founded by Bill Gates and Paul Allen."
HELD_OUT = SAMPLE / "held_out.jsonl"
PRECISIONS = ("float32", "int8", "int4")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The MLflow model directory of `make local-train`: `tiny`, fine-tuned on the sample. Do not change it."""
    # one for all of the processes that test at once
    shared = tmp_path_factory.getbasetemp()
    run = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "tiny"
    with FileLock(f"{run}.lock"):
        if not (run / "model").is_dir():
            _train(run)
    return run / "model"


def _train(run: Path) -> None:
    options = {
        "recipe": "tiny_cpu",
        "model": "recipe",
        "overrides": json.dumps({"num_eval_questions": 4}),
        "train-file": SAMPLE / "train.jsonl",
        "eval-file": HELD_OUT,
        "run-dir": run,
        "model_output_dir": run / "model",
    }
    arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    subprocess.run(
        [sys.executable, "fine_tune.py", *arguments], cwd=TRAINING, check=True, capture_output=True, timeout=600
    )


@pytest.fixture(scope="session")
def exported_model(tiny_model, tmp_path_factory) -> Path:
    """A copy of it with an ONNX export in every precision, the quantised ones through the quality gate."""
    target = tmp_path_factory.mktemp("exported") / "model"
    subprocess.run(["cp", "-r", tiny_model, target], check=True)
    precisions = [word for precision in PRECISIONS for word in ("--precision", precision)]
    export = [sys.executable, "-m", "serving.export_onnx", str(target), *precisions, "--held-out", str(HELD_OUT)]
    subprocess.run(export, cwd=ROOT, check=True, capture_output=True, timeout=600)
    return target


@pytest.fixture(scope="session")
def random_model(tmp_path_factory) -> Path:
    """A model directory of random weights in Phi-3's shape, whose answers never end by themselves."""
    return make_random_model(tmp_path_factory.mktemp("random") / "model")


def make_random_model(target: Path, **shape: object) -> Path:
    """Random weights in Phi-3's architecture, exported as a model directory.

    Args:
        shape: keys of Phi3Config that differ from the small default.
    """
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    from export import export
    from model import load_tokenizer
    from recipe import load_recipe

    recipe = load_recipe("tiny_cpu", {})
    rows = sample_rows("train.jsonl", 60)
    tokenizer = load_tokenizer(recipe.model, (message["content"] for row in rows for message in row["messages"]))
    config = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "original_max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(1)
    model = Phi3ForCausalLM(Phi3Config(**(config | shape)))
    with torch.no_grad():
        # answers that differ from question to question
        for weight in model.model.layers.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
        # (the largest of hundreds of random logits is above zero)
        model.lm_head.weight[tokenizer.all_special_ids] = 0
    export(model, tokenizer, target, recipe, {"run": "random"})
    return target
