"""Phi-3.5-mini's shape with random weights on a GPU: the kit's recipes against the tutorial's settings, sequence 2048.

    python tests/benchmarks/bench_gpu.py                     # one GPU of 80 GB or more
    python tests/benchmarks/bench_gpu.py --layers 2 --steps 2 --device cpu   # whether it runs at all

Tokens a second, model FLOPs utilisation against the GPU's own bfloat16 matmul in this run, and peak memory, of
`phi3_5_mini_full`, the same with fused attention, and `phi3_5_mini_lora`, next to a bare SFTTrainer with the tutorial's
settings (packed rows that attend to each other, eager attention). Each contender has a process of its own, since peak
memory is the process's; they are run in turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "training"), str(Path(__file__).parent)]

from contest import Result, median, table  # noqa: E402

CONTENDERS = ("tutorial", "full", "full, sdpa", "lora")
VOCABULARY = 32064


def measure(name: str, layers: int, steps: int, device: str) -> dict[str, float]:
    """Train one contender for some steps on random tokens. Returns seconds a step, tokens a step, FLOPs and bytes."""
    import torch
    from datasets import Dataset
    from transformers import Phi3Config, Phi3ForCausalLM, TrainerCallback, set_seed

    from model import load_tokenizer
    from recipe import load_recipe
    from trainer import build_trainer

    set_seed(0)
    folder = tempfile.mkdtemp(prefix="phikit-bench-")
    overrides: dict[str, Any] = {"max_steps": steps, "save_strategy": "no", "eval_strategy": "no", "warmup_steps": 0}
    if name == "full, sdpa":
        overrides["attn_implementation"] = "sdpa"
    if device == "cpu":
        overrides["max_length"] = 64
    recipe = load_recipe("phi3_5_mini_lora" if name == "lora" else "phi3_5_mini_full", overrides, folder)
    args, length = recipe.sft, recipe.sft.max_length
    rows = args.per_device_train_batch_size * steps
    ids = torch.randint(10, VOCABULARY - 100, (rows, length)).tolist()
    # four conversations of a quarter each in a row
    lengths = [[length // 4] * 4] * rows
    data = Dataset.from_dict({"input_ids": ids, "labels": ids, "seq_lengths": lengths})
    config = Phi3Config(num_hidden_layers=layers, attn_implementation=recipe.model.attn_implementation)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        model = Phi3ForCausalLM._from_config(config, dtype=dtype)
    tokenizer = load_tokenizer(load_recipe("tiny_cpu").model, ["one text"])
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - self.began)

    if name == "tutorial":
        from trl import SFTTrainer

        args.packing, args.dataset_kwargs = False, {"skip_prepare_dataset": True}
        plain = data.remove_columns("seq_lengths")
        trainer = SFTTrainer(model, args, train_dataset=plain, processing_class=tokenizer, callbacks=[Clock()])
    else:
        trainer = build_trainer(recipe, model, tokenizer, data, data, [Clock()])
    parameters = sum(p.numel() for p in model.parameters())
    products = parameters - VOCABULARY * config.hidden_size
    trainer.train()
    # with frozen weights no gradient of a weight is computed: 4 operations a weight and token instead of 6
    per_weight = 4 if name == "lora" else 6
    tokens = args.per_device_train_batch_size * length
    flops = tokens * (per_weight * products + 12 * layers * config.hidden_size * length)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"seconds": median(seconds[1:]), "tokens": tokens, "flops": flops, "bytes": peak, "peak": matmul(device)}


def matmul(device: str) -> float:
    """Operations a second of a large bfloat16 product on this device."""
    import torch

    size = 8192 if device == "cuda" else 1024
    one, other = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    rates = []
    for _ in range(20):
        began = time.perf_counter()
        one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - began))
    return median(rates)


def main() -> int:
    """Run every contender in turns and print the table."""
    parser = argparse.ArgumentParser(description="Phi-3.5-mini's shape on a GPU, as ratios in one run.")
    parser.add_argument("--layers", type=int, default=32, help="decoder layers (Phi-3.5-mini has 32)")
    parser.add_argument("--steps", type=int, default=8, help="steps a turn; the first is not counted")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contender")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        numbers = measure(arguments.contender, arguments.layers, arguments.steps, arguments.device)
        print(json.dumps(numbers))
        return 0
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("NOT MEASURED: no CUDA device on this machine")
        return 0
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.rounds):
        for name, numbers in taken.items():
            command = [sys.executable, __file__, "--contender", name, "--device", arguments.device]
            command += ["--layers", str(arguments.layers), "--steps", str(arguments.steps)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            numbers.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {name: median([one["seconds"] for one in numbers]) for name, numbers in taken.items()}
    results = []
    for name, numbers in taken.items():
        first, peak = numbers[0], median([one["peak"] for one in numbers])
        utilisation = first["flops"] / seconds[name] / peak
        speed = first["tokens"] / seconds[name]
        print(f"{name:<12} {speed:>10.0f} tokens/s   MFU {utilisation:.2f}   peak {first['bytes'] / 1024**3:.1f} GiB")
        if name != "tutorial":
            results.append(Result(f"{name} / tutorial's settings", seconds["tutorial"] / seconds[name]))
    table(f"Phi-3.5-mini's shape, {arguments.layers} layers", results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
