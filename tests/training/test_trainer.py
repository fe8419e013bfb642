"""The trainer: TRL's own loss and gradients, adapters that train and merge, whole checkpoints, stops.

python -m pytest tests/training/test_trainer.py
"""

import json
import os
import signal

import pytest

from encoding import IGNORED, Collator, encode_dataset
from errors import RunFailed
from export import merged
from model import load_model, load_tokenizer
from recipe import load_recipe
from trainer import StopOnNan, StopOnSignal, Trainer, build_trainer, last_whole_checkpoint

SHORT = {"max_length": 128, "max_steps": 6, "eval_strategy": "no", "save_strategy": "no", "logging_steps": 1}
LORA = {
    "use_peft": True,
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "lora_target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    "learning_rate": 5.0e-3,
}
QLORA = {**LORA, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "optim": "adamw_torch", "save_base": False}


@pytest.fixture
def make(tmp_path, rows):
    """A trainer, with its tokenizer, over the sample for a recipe's keys."""
    from datasets import Dataset

    def build(callbacks=(), **keys) -> tuple[Trainer, object]:
        recipe = load_recipe("tiny_cpu", SHORT | keys, tmp_path / "checkpoints")
        tokenizer = load_tokenizer(recipe.model, (message["content"] for row in rows for message in row["messages"]))
        model = load_model(recipe.model, tokenizer, recipe.sft.seed)
        data = encode_dataset(
            Dataset.from_list(rows),
            tokenizer,
            max_length=recipe.sft.max_length,
            packing=recipe.sft.packing,
            assistant_only=recipe.sft.assistant_only_loss,
        )
        trainer = build_trainer(recipe, model, tokenizer, data, data.select(range(2)), list(callbacks))
        return trainer, recipe

    return build


def gradients(trainer, compute, batch, **more):
    trainer.model.train()
    trainer.model.zero_grad()
    loss = compute(trainer, trainer.model, {**batch}, **more)
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    return loss.detach(), found


def logits_of(model, batch):
    import torch

    model.eval()
    with torch.inference_mode():
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits.float()


def loss_of(logits, batch) -> float:
    import torch

    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()).item()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"assistant_only_loss": False},
        {"attn_implementation": "eager", "packing": False},
        {"activation_checkpointing": True},
        LORA,
    ],
    ids=["tiny_cpu", "all-tokens", "eager-padded", "checkpointing", "lora"],
)
@pytest.mark.parametrize("items", [None, 250])
def test_loss_and_gradients_are_trls_own(make, keys, items):
    import torch
    from trl import SFTTrainer

    trainer, _ = make(**keys)
    batch = Collator(trainer.processing_class.pad_token_id)(list(trainer.train_dataset.select(range(3))))
    ours, our_gradients = gradients(trainer, Trainer.compute_loss, batch, num_items_in_batch=items)
    theirs, their_gradients = gradients(trainer, SFTTrainer.compute_loss, batch, num_items_in_batch=items)
    assert ours > 0.5
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert our_gradients.keys() == their_gradients.keys() and len(our_gradients) > 10
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-3, atol=1e-6)
    # and the loss is a plain cross entropy over the labels that count
    trainer.model.eval()
    logits = logits_of(trainer.model, batch)
    counted = (batch["labels"][:, 1:] != IGNORED).sum().item()
    assert ours.item() == pytest.approx(loss_of(logits, batch) * counted / (items or counted), rel=1e-4)


def test_batch_with_nothing_to_learn_costs_nothing(make):
    trainer, _ = make()
    batch = Collator(trainer.processing_class.pad_token_id)([{"input_ids": [5, 6], "labels": [-100, -100]}])
    assert trainer.compute_loss(trainer.model, batch) == 0


def test_gradient_accumulation_is_one_large_batch(make):
    import torch

    ends = []
    for keys in (
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ):
        trainer, _ = make(**keys, max_steps=3)
        trainer.train()
        ends.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    torch.testing.assert_close(*map(torch.tensor, ends), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("keys", [LORA, QLORA], ids=["lora", "qlora"])
def test_adapters_train_and_merge(make, phi_folder, keys):
    import torch
    from safetensors.torch import load_file

    trainer, recipe = make(**keys, model_name_or_path=str(phi_folder))
    names = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert names and all("lora_" in name for name in names), "nothing but adapters is trained"
    quantised = {type(module).__name__ for module in trainer.model.modules()} & {"Linear4bit"}
    assert bool(quantised) == ("load_in_4bit" in keys)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.2

    batch = Collator(trainer.processing_class.pad_token_id)(list(trainer.train_dataset.select(range(2))))
    with_adapters = logits_of(trainer.model, batch)
    adapters = {
        name: weight.detach().float().clone() for name, weight in trainer.model.named_parameters() if "lora_" in name
    }
    plain = merged(trainer.model, recipe)
    assert type(plain).__name__ == "Phi3ForCausalLM"
    assert not any("lora" in name for name in plain.state_dict())
    after = logits_of(plain, batch)
    if "load_in_4bit" in keys:
        # the adapters learned over rounded weights, and are merged into the ones before rounding
        kept = torch.corrcoef(torch.stack([after.flatten(), with_adapters.flatten()]))[0, 1]
        assert kept > 0.9
        assert loss_of(after, batch) == pytest.approx(loss_of(with_adapters, batch), abs=0.05)
    else:
        torch.testing.assert_close(after, with_adapters, rtol=1e-4, atol=1e-4)
    base = load_file(phi_folder / "model.safetensors")
    changed = 0
    for name, weight in plain.state_dict().items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        wanted = base.get(name, base["model.embed_tokens.weight"]).float()
        if f"{stem}.lora_A.default.weight" in adapters:
            a, b = (adapters[f"{stem}.lora_{side}.default.weight"] for side in "AB")
            wanted = wanted + b @ a * (keys["lora_alpha"] / keys["lora_r"])
            changed += 1
        torch.testing.assert_close(weight.float(), wanted, rtol=1e-4, atol=1e-5)
    assert changed == 2 * 4


def test_compiled_model_keeps_its_weights_names(make):
    trainer, recipe = make(torch_compile=True)
    assert not any("_orig_mod" in name for name in trainer.model.state_dict())
    assert merged(trainer.model, recipe) is trainer.model


@pytest.mark.parametrize("values", [{"loss": float("nan")}, {"grad_norm": float("inf")}, {"eval_loss": "nan"}])
def test_nan_ends_the_run_with_advice(values, make):
    trainer, recipe = make()
    with pytest.raises(RunFailed, match=r"is (nan|inf) at step 0: lower learning_rate \(now 0.002\)") as caught:
        StopOnNan().on_log(recipe.sft, trainer.state, trainer.control, values)
    assert "\n" not in str(caught.value)
    StopOnNan().on_log(recipe.sft, trainer.state, trainer.control, {"loss": 1.0, "learning_rate": 0.1})


def test_sigterm_outside_of_training_is_passed_on():
    class Told(Exception):
        pass

    def tell() -> None:
        raise Told

    before = signal.getsignal(signal.SIGTERM)
    stop = StopOnSignal()
    try:
        stop.install(tell)
        with pytest.raises(Told):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.stopped
    finally:
        signal.signal(signal.SIGTERM, before)


def test_last_whole_checkpoint(tmp_path):
    assert last_whole_checkpoint(tmp_path / "nowhere") is None
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_whole_checkpoint(tmp_path) is None, "none has its state yet"
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    assert last_whole_checkpoint(tmp_path).name == "checkpoint-10", "by number, not by name"
    (tmp_path / "checkpoint-100" / "trainer_state.json").write_text('{"global_step": 100, "log_hist')
    assert last_whole_checkpoint(tmp_path).name == "checkpoint-10", "a truncated one is none"
    (tmp_path / "checkpoint-100" / "trainer_state.json").write_text('{"epoch": 1.0}')
    assert last_whole_checkpoint(tmp_path).name == "checkpoint-10"


def test_state_is_what_a_checkpoint_ends_with(make):
    trainer, _ = make(save_strategy="steps", save_steps=2, max_steps=2)
    trainer.train()
    (checkpoint,) = (path for path in os.scandir(trainer.args.output_dir) if path.is_dir())
    written = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(checkpoint.path)}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} <= written.keys()
    assert max(written, key=written.get) == "trainer_state.json"
