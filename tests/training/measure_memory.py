"""Train a Phi-3-architecture model for two steps and print what it took and what was estimated, in bytes, as JSON.

    python tests/training/measure_memory.py '{"attn_implementation": "eager"}'        # recipe keys

A process of its own, because the most that a process ever held can only be read for its whole life.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

KEYS = {
    "model_name_or_path": "measured",
    "dtype": "float32",
    "max_length": 256,
    "per_device_train_batch_size": 3,
    "max_steps": 2,
    "eval_strategy": "no",
    "save_strategy": "no",
    "packing": True,
    "assistant_only_loss": False,
    "optim": "adamw_torch_fused",
}
VOCABULARY = 4096


def held(field: str) -> int:
    """A line of the kernel's account of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def main() -> None:
    from datasets import Dataset
    from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

    import model
    from memory import estimate_run
    from recipe import load_recipe
    from trainer import build_trainer

    keys = KEYS | json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe("tiny_cpu", keys, folder)
        tokenizer: PreTrainedTokenizerFast = model._tiny_tokenizer(["Who founded Microsoft?"])
        length = recipe.sft.max_length
        rows = [{"input_ids": [i % VOCABULARY for i in range(length)], "labels": [1] * length}] * 16
        data = Dataset.from_list(rows)
        before = held("VmRSS")
        network = Phi3ForCausalLM(
            Phi3Config(
                vocab_size=VOCABULARY,
                hidden_size=448,
                intermediate_size=1216,
                num_hidden_layers=8,
                num_attention_heads=7,
                num_key_value_heads=7,
                pad_token_id=0,
                attn_implementation=recipe.model.attn_implementation,
            )
        )
        need = estimate_run(recipe, network.config, model.parameter_count(network))
        trainer = build_trainer(recipe, network, tokenizer, data, data, [])
        trainer.train()
    print(json.dumps({"before": before, "peak": held("VmHWM"), "total": need.total, **asdict(need)}))


if __name__ == "__main__":
    main()
