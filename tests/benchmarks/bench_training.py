"""Training speed on a CPU: the kit against a bare PyTorch loop, TRL's command line and the tutorial's settings.

    python tests/benchmarks/bench_training.py                    # all, about 15 minutes on two cores
    python tests/benchmarks/bench_training.py tiny trl small --rounds 2
    python tests/benchmarks/bench_training.py --without-bfloat16 # as on a CPU that has no instructions for it

- `tiny`: the recipe tiny_cpu, the kit's whole trainer against a loop of forward, backward and optimizer step on the
  very same batches.
- `trl`: the sample once through, against `trl sft` with its defaults on the same model and conversations.
- `small`: a Phi-3-architecture model of 160 M parameters with the recipe small_cpu, against bare loops with the
  tutorial's settings (eager attention, everything recomputed), in bfloat16 as written and in float32, on the same
  batches; and against what the machine's own matrix multiplication reaches.

The contenders take turns in one run. A turn is a few steps; the first step of a contender is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "training"), str(Path(__file__).parent)]

from contest import Result, median, table  # noqa: E402

SAMPLE = ROOT / "training" / "sample" / "train.jsonl"
WITHOUT_BFLOAT16 = "AVX512_CORE"
#: 160 M parameters in Phi-3's shape, with Phi-3's vocabulary.
SMALL = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


class Loop:
    """A bare PyTorch loop over batches: forward, backward, clip, step."""

    def __init__(self, model: Any, batches: Sequence[dict[str, Any]], rate: float) -> None:
        import torch

        self.model, self.rate = model.train(), rate
        self.batches = iter(batches * 1000)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True)
        self.losses: list[float] = []

    def turn(self, steps: int) -> list[float]:
        """Seconds of each step."""
        import torch

        seconds = []
        for _ in range(steps):
            batch = next(self.batches)
            began = time.perf_counter()
            loss = self.model(**batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(loss.item())
            seconds.append(time.perf_counter() - began)
        return seconds


class Kit:
    """The kit's trainer as `fine_tune.py` builds it, paused between turns."""

    def __init__(self, recipe: Any, model: Any, tokenizer: Any, rows: Any) -> None:
        import threading

        from transformers import TrainerCallback
        from transformers.trainer_callback import PrinterCallback

        from trainer import SaveAfterEvaluation, StopOnNan, StopOnSignal, build_trainer

        kit = self

        class Pause(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                kit.go.acquire()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                kit.done.release()

            def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
                if "loss" in logs:
                    kit.losses.append(logs["loss"])

        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.losses: list[float] = []
        callbacks = [StopOnNan(), SaveAfterEvaluation(), StopOnSignal(), Pause()]
        self.trainer = build_trainer(recipe, model, tokenizer, rows, rows, callbacks)
        self.trainer.remove_callback(PrinterCallback)
        threading.Thread(target=self.trainer.train, daemon=True).start()

    def turn(self, steps: int) -> list[float]:
        """Seconds of each step, the trainer's own work between steps included."""
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            self.go.release()
            self.done.acquire()
            seconds.append(time.perf_counter() - began)
        return seconds


def take_turns(contenders: dict[str, Callable[[int], list[float]]], rounds: int, steps: int) -> dict[str, float]:
    """Median seconds a step of each contender, after one step that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name, turn in contenders.items():
        print(f"  warming up {name}: {turn(1)[0]:.1f} s", flush=True)
    for number in range(rounds):
        for name, turn in contenders.items():
            seconds[name] += turn(steps)
        print("  round", number + 1, {name: round(median(taken), 3) for name, taken in seconds.items()}, flush=True)
    return {name: median(taken) for name, taken in seconds.items()}


def prepared(recipe_name: str, model_name: str, folder: Path, overrides: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Recipe, model, tokenizer and encoded rows, made as a run makes them."""
    from datasets import Dataset

    from encoding import encode_dataset
    from model import load_model, load_tokenizer
    from recipe import load_recipe

    fixed = {
        "model_name_or_path": model_name,
        "train_sampling_strategy": "sequential",
        "eval_strategy": "no",
        "save_strategy": "no",
        "max_steps": 10_000,
        "warmup_steps": 0,
        "lr_scheduler_type": "constant",
    }
    recipe = load_recipe(recipe_name, fixed | overrides, folder / "checkpoints")
    conversations = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    tokenizer = load_tokenizer(recipe.model, (turn["content"] for row in conversations for turn in row["messages"]))
    model = load_model(recipe.model, tokenizer, recipe.sft.seed)
    args = recipe.sft
    rows = encode_dataset(
        Dataset.from_list(conversations),
        tokenizer,
        max_length=args.max_length,
        packing=args.packing,
        assistant_only=args.assistant_only_loss,
    )
    return recipe, model, tokenizer, rows


def batches_of(rows: Any, tokenizer: Any, size: int, length: int) -> list[dict[str, Any]]:
    """The batches that a trainer sees which takes the rows in their order; whole ones only."""
    from encoding import Collator

    collate = Collator(tokenizer.pad_token_id, length)
    return [collate([rows[i + k] for k in range(size)]) for i in range(0, len(rows) - size + 1, size)]


def bench_tiny(rounds: int, folder: Path) -> Iterator[Result]:
    """The trainer's own cost on the smallest model, where it shows most."""
    import copy

    recipe, model, tokenizer, rows = prepared("tiny_cpu", "tiny", folder, {"dataloader_drop_last": True})
    size, length, rate = recipe.sft.per_device_train_batch_size, recipe.sft.max_length, recipe.sft.learning_rate
    loop = Loop(copy.deepcopy(model), batches_of(rows, tokenizer, size, length), rate)
    kit = Kit(recipe, model, tokenizer, rows)
    seconds = take_turns({"bare loop": loop.turn, "kit": kit.turn}, rounds * 8, 5)
    print(f"  kit {size * length / seconds['kit']:.0f} tokens/s, loop {size * length / seconds['bare loop']:.0f}")
    yield Result("tiny_cpu: kit's trainer / bare PyTorch loop", seconds["bare loop"] / seconds["kit"], 0.85)


def bench_trl(rounds: int, folder: Path) -> Iterator[Result]:
    """One epoch over the sample with `trl sft` as it comes, and with the kit; both their own count of seconds."""
    _, model, tokenizer, _ = prepared("tiny_cpu", "tiny", folder, {})
    base = folder / "base"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    data = folder / "data"
    data.mkdir()
    shutil.copy(SAMPLE, data / "train.jsonl")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HOME": str(folder / "hf")}
    trl = [str(Path(sys.executable).with_name("trl")), "sft", "--model_name_or_path", str(base)]
    trl += ["--dataset_name", str(data), "--num_train_epochs", "1", "--output_dir", str(folder / "trl")]
    # without a GPU the defaults are refused; this is the flag that the message asks for
    trl += ["--report_to", "none", "--save_strategy", "no", "--use_cpu", "true"]
    kit = [sys.executable, str(ROOT / "training" / "fine_tune.py"), "--recipe", "tiny_cpu", "--model", str(base)]
    kit += ["--train-file", str(SAMPLE), "--eval-file", str(SAMPLE.with_name("held_out.jsonl"))]
    changes = {"num_train_epochs": 1, "eval_strategy": "no", "num_eval_questions": 1}
    kit += ["--overrides", json.dumps(changes)]
    times: dict[str, list[float]] = {"trl": [], "kit": []}
    for number in range(rounds):
        done = subprocess.run(trl, env=environment, capture_output=True, text=True, check=True)
        shown = next(text for text in (done.stdout + done.stderr).split("{") if "train_runtime" in text)
        times["trl"].append(float(shown.split("train_runtime")[1].split(",")[0].strip(" '\":")))
        run = folder / f"kit-{number}"
        where = ["--run-dir", str(run), "--model_output_dir", str(run / "model")]
        subprocess.run(kit + where, env=environment, capture_output=True, text=True, check=True)
        times["kit"].append(json.loads((run / "metrics.json").read_text())["train"]["seconds"])
        print("  round", number + 1, {name: taken[-1] for name, taken in times.items()}, flush=True)
    yield Result(
        "one epoch of the sample: kit / `trl sft` with its defaults", median(times["trl"]) / median(times["kit"]), 10
    )


def bench_small(rounds: int, folder: Path) -> Iterator[Result]:
    """160 M parameters: what compiling, fused attention and not recomputing are worth, and what is left to win."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM, set_seed

    from model import load_tokenizer
    from recipe import load_recipe

    base = folder / "small"
    texts = [turn["content"] for line in SAMPLE.read_text().splitlines() for turn in json.loads(line)["messages"]]
    tokenizer = load_tokenizer(load_recipe("tiny_cpu").model, texts)
    tokenizer.save_pretrained(base)
    set_seed(0)
    ids = {"bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
    Phi3ForCausalLM(Phi3Config(**SMALL, vocab_size=32064, num_key_value_heads=12, **ids)).save_pretrained(base)
    changes = {"dataloader_drop_last": True, "logging_steps": 1}
    if os.environ.get("ONEDNN_MAX_CPU_ISA") == WITHOUT_BFLOAT16:
        changes["bf16"] = False
    recipe, model, tokenizer, rows = prepared("small_cpu", str(base), folder, changes)
    size, length, rate = recipe.sft.per_device_train_batch_size, recipe.sft.max_length, recipe.sft.learning_rate
    batches = batches_of(rows, tokenizer, size, length)

    def loop(dtype: torch.dtype) -> Loop:
        eager = Phi3ForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation="eager")
        eager.gradient_checkpointing_enable()
        return Loop(eager, batches, rate)

    kit = Kit(recipe, model, tokenizer, rows)
    written, single = loop(torch.bfloat16), loop(torch.float32)
    parameters = sum(p.numel() for p in model.parameters())
    products = parameters - model.get_input_embeddings().weight.numel()
    # 6 operations a weight and token, and attention's two products, forward and backward (PaLM, arXiv:2204.02311, B)
    flops = size * length * (6 * products + 12 * SMALL["num_hidden_layers"] * SMALL["hidden_size"] * length)
    precision = torch.bfloat16 if recipe.sft.bf16 else torch.float32
    rates: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}

    def multiply(_: int) -> list[float]:
        for dtype, found in rates.items():
            one, other = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
            for _ in range(12):
                began = time.perf_counter()
                one @ other
                found.append(2 * 2048**3 / (time.perf_counter() - began))
        return [1.0]

    contenders = {"kit": kit.turn, "fp32": single.turn, "as written": written.turn, "matmul": multiply}
    seconds = take_turns(contenders, rounds, 3)
    for name in ("kit", "fp32", "as written"):
        print(f"  {name}: {size * length / seconds[name]:.0f} tokens/s")
    steps = min(len(kit.losses), len(single.losses))
    peaks = {str(dtype).removeprefix("torch."): round(median(found) / 1e9) for dtype, found in rates.items()}
    print(f"  {parameters / 1e6:.0f} M parameters; matmul in GFLOP/s: {peaks}")
    print(f"  loss after {steps} steps: kit {kit.losses[steps - 1]:.4f}, fp32 {single.losses[steps - 1]:.4f}")
    kit_time = seconds["kit"]
    yield Result("160 M: kit / tutorial as written (bf16, eager, recomputed)", seconds["as written"] / kit_time, 3.5)
    yield Result("160 M: kit / the same in float32", seconds["fp32"] / kit_time, 1.5)
    yield Result(
        f"160 M: kit / the machine's matmul peak ({precision})", flops / kit_time / median(rates[precision]), 0.6
    )
    yield Result("160 M: loss, kit / float32 loop", kit.losses[steps - 1] / single.losses[steps - 1])


BENCHMARKS = {"tiny": bench_tiny, "trl": bench_trl, "small": bench_small}


def main() -> int:
    """Run the benchmarks named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Training speed, as ratios in one run.")
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument(
        "--without-bfloat16", action="store_true", help="keep oneDNN from the CPU's bfloat16 instructions"
    )
    arguments = parser.parse_args()
    if arguments.without_bfloat16:
        # read when torch is imported, by this process and those that it starts
        os.environ["ONEDNN_MAX_CPU_ISA"] = WITHOUT_BFLOAT16
    results: list[Result] = []
    for name in arguments.names or BENCHMARKS:
        print(f"{name}:", flush=True)
        with tempfile.TemporaryDirectory(prefix="phikit-bench-") as folder:
            results += BENCHMARKS[name](arguments.rounds, Path(folder))
    table("Training" + (", bfloat16 instructions off" if arguments.without_bfloat16 else ""), results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
