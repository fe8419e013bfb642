"""Tokens a second, time to first token, start and memory of the scoring server, against its peers.

    python -m tests.benchmarks.bench_serving                                   # against `mlflow models serve`
    python -m tests.benchmarks.bench_serving --llama-cpp ~/.cache/phikit/llama.cpp
    python -m tests.benchmarks.bench_serving --model tiny --rounds 5
    python -m tests.benchmarks.bench_serving soak --minutes 10                 # twice the capacity, errors and memory

All servers run at once and are asked in turns; every number is the median of the rounds. The model is a random one of
138 M parameters in Phi-3's shape (or `tiny`'s); each request asks for 48 tokens after a prompt of about 50, greedily.
tests/benchmarks/llama_cpp.py says how llama.cpp gets into its folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import llama_cpp, soak
from tests.benchmarks.contest import Result, median, table
from tests.benchmarks.load import burst
from tests.benchmarks.servers import CONTEXT, ROOT, SLOTS, Contender, Running, kit, llama, mlflow, started

TOKENS = 48
CLIENTS = (1, 4, 16)
SHAPES = {
    "small": {
        "vocab_size": 16000,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    # as training/model.py builds it
    "tiny": {
        "vocab_size": 1408,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
    },
}
PRECISIONS = ("float32", "int8", "int4")
#: llama.cpp's nearest to each precision.
NEAREST = {"float32": "F32", "int8": "Q8_0", "int4": "Q4_0"}

#: Makes a model of random weights and exports it with the kit's own code; runs in training/.
MAKE = """
import json, sys
sys.path.insert(0, "training")
import torch
from pathlib import Path
from transformers import Phi3Config, Phi3ForCausalLM
from export import export
from model import load_tokenizer
from recipe import load_recipe
shape, target = json.loads(sys.argv[1]), Path(sys.argv[2])
recipe = load_recipe("tiny_cpu", {})
rows = [json.loads(line) for line in open("training/sample/train.jsonl", encoding="utf-8")]
tokenizer = load_tokenizer(recipe.model, [message["content"] for row in rows for message in row["messages"]])
torch.manual_seed(0)
config = Phi3Config(**shape, max_position_embeddings=1024, original_max_position_embeddings=1024, sliding_window=None,
                    pad_token_id=0, bos_token_id=1, eos_token_id=3, tie_word_embeddings=False)
model = Phi3ForCausalLM(config)
model.generation_config.eos_token_id = [3, 6]
# every token it says is text of its own, and none an end: the first token can be seen as it comes, and none is missing
said = [tokenizer.decode([token]) for token in range(config.vocab_size)]
mute = [n for n, text in enumerate(said) if not text.strip() or "\\ufffd" in text or n in tokenizer.all_special_ids]
with torch.no_grad():
    model.lm_head.weight[mute] = 0
export(model, tokenizer, target, recipe, {"run": "benchmark"})
"""

#: What an engine takes by itself, in a process of its own: imports, weights, tokenizer, a first pass.
BARE = {
    "onnx": """
import sys, numpy, onnxruntime, json
from pathlib import Path
from tokenizers import Tokenizer
weights, folder = Path(sys.argv[1]), Path(sys.argv[2])
Tokenizer.from_file(str(weights / "tokenizer.json"))
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
feed = {"input_ids": numpy.ones((1, 4), "int64"), "attention_mask": numpy.ones((1, 4), "int64")}
shape = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
for value in session.get_inputs():
    if value.name not in feed:
        feed[value.name] = numpy.zeros((1, shape["num_key_value_heads"], 0, shape["head_size"]), "float32")
session.run(["logits"], feed)
""",
    "transformers": """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    model(torch.ones((1, 4), dtype=torch.long))
""",
}


def prompts(count: int, seed: int) -> list[str]:
    """Different prompts of about 50 tokens, none the beginning of another."""
    words = ["Windows", "founder", "Azure", "Xbox", "company", "year", "Office", "product", "Redmond", "question"]
    return [
        " ".join(
            [f"Number {seed * 1000 + number}:", *(words[(number * 7 + place * (seed + 3)) % 10] for place in range(24))]
        )
        for number in range(count)
    ]


def make_model(shape: str, folder: Path) -> Path:
    """The model directory, with its ONNX exports."""
    import json

    target = folder / "model"
    subprocess.run(
        [sys.executable, "-c", MAKE, json.dumps(SHAPES[shape]), target], check=True, cwd=ROOT, stderr=subprocess.DEVNULL
    )
    for precision in PRECISIONS:
        export = ["-m", "serving.export_onnx", str(target), "--precision", precision, "--force"]
        subprocess.run([sys.executable, *export], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return target


def contenders(model: Path, folder: Path, llama_folder: Path | None) -> list[Contender]:
    """All servers of the contest; llama.cpp's too, where it is."""
    found = [mlflow(model), kit(model, "transformers", "float32")]
    found += [kit(model, "onnx", precision) for precision in PRECISIONS]
    if llama_folder:
        plain = folder / "F32.gguf"
        llama_cpp.convert(llama_folder, model / "artifacts" / "weights", plain)
        for kind in NEAREST.values():
            if kind != "F32":
                llama_cpp.quantise(llama_folder, plain, folder / f"{kind}.gguf", kind)
        found += [llama(llama_folder, folder / f"{kind}.gguf") for kind in NEAREST.values()]
    return found


def throughput(servers: Sequence[Running], rounds: int) -> dict[tuple[str, int], tuple[float, float]]:
    """Median tokens a second and time to first token, by server and number of clients."""
    speeds: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for server in servers:
        burst(server.port, server.contender.client, prompts(2, 99), 2, 8)
    for turn in range(rounds):
        for clients in CLIENTS:
            for server in servers:
                # one answer a client of the slow one, enough of the others to see them at work
                each = 1 if "mlflow" in server.contender.name else 3
                asked = prompts(clients * each, turn * 10 + clients)
                seconds, answered = burst(server.port, server.contender.client, asked, clients, TOKENS)
                # tokens and time to first token while all clients are there, the last ones' end included
                speed = sum(result.tokens for result in answered) / seconds
                first = median([result.first for result in answered])
                speeds.setdefault((server.contender.name, clients), []).append((speed, first))
    return {key: (median([s for s, _ in found]), median([f for _, f in found])) for key, found in speeds.items()}


def report(servers: Sequence[Running], measured: dict[tuple[str, int], tuple[float, float]]) -> None:
    """The table of speeds, and the ratios that are promised."""
    print(f"\n{'tokens/s, and ms to the first token':<28}" + "".join(f"{f'{c} clients':>22}" for c in CLIENTS))
    for server in servers:
        name = server.contender.name
        cells = (f"{measured[name, c][0]:.1f}, {measured[name, c][1] * 1000:.0f}" for c in CLIENTS)
        print(f"{name:<28}" + "".join(f"{cell:>22}" for cell in cells))
    base = "mlflow models serve"
    results = []
    for name in dict.fromkeys(name for name, _ in measured if name.startswith("kit")):
        results.append(
            Result(f"{name} / mlflow, tokens/s, 16 clients", measured[name, 16][0] / measured[base, 16][0], 8)
        )
        first = measured[name, 16][1] / measured[base, 16][1]
        results.append(Result(f"{name} / mlflow, time to first token, 16 clients", first, 0.1, at_most=True))
        goal = {"kit transformers float32": 1.1, "kit onnx int4": 3}.get(name)
        results.append(
            Result(f"{name} / mlflow, tokens/s, 1 client", measured[name, 1][0] / measured[base, 1][0], goal)
        )
    table("Against mlflow models serve", results)
    results = []
    for precision, kind in NEAREST.items():
        peer = f"llama.cpp {kind}"
        if (peer, 1) in measured:
            engines = ("onnx", "transformers") if precision == "float32" else ("onnx",)
            for engine in engines:
                name = f"kit {engine} {precision}"
                for clients, goal in ((1, 1.0), (4, None), (16, 0.9)):
                    ratio = measured[name, clients][0] / measured[peer, clients][0]
                    results.append(Result(f"{name} / {peer}, tokens/s, {clients} clients", ratio, goal))
    if results:
        table("Against llama.cpp", results)


def start_and_memory(model: Path, folder: Path, shape: str, rounds: int) -> None:
    """Start to ready against the engine by itself, and peak memory against weights and cache, each server alone."""
    results = []
    size = SHAPES[shape]
    cache = 2 * 4 * size["num_hidden_layers"] * size["hidden_size"] * SLOTS * CONTEXT
    weights = model / "artifacts" / "weights"
    for engine, precision in (("transformers", "float32"), *(("onnx", precision) for precision in PRECISIONS)):
        part = weights if engine == "transformers" else model / "artifacts" / f"onnx-{precision}"
        data = sum(file.stat().st_size for file in part.iterdir() if file.suffix in (".safetensors", ".onnx", ".data"))
        starts, bares, peak = [], [], 0
        for turn in range(rounds):
            began = time.perf_counter()
            code = BARE[engine]
            bare = subprocess.Popen([sys.executable, "-c", code, weights, part], cwd=ROOT, stderr=subprocess.DEVNULL)
            if bare.wait():
                raise RuntimeError(f"the bare {engine} engine failed")
            bares.append(time.perf_counter() - began)
            with started(kit(model, engine, precision), folder) as server:
                starts.append(server.seconds)
                if not turn:
                    burst(server.port, server.contender.client, prompts(SLOTS * 2, turn), SLOTS, CONTEXT - 120)
                    peak = server.peak_memory()
        name = f"kit {engine} {precision}"
        results.append(
            Result(
                f"{name}: start to ready / bare engine ({median(bares):.2f} s)",
                median(starts) / median(bares),
                1.3,
                True,
            )
        )
        results.append(Result(f"{name}: peak MiB, full slots", peak / 2**20))
        results.append(Result(f"{name}: MiB of weights and cache", (data + cache) / 2**20))
    table("Start and memory", results)


def main() -> None:
    """Run the contest, or the soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("contest", "start", "soak"), default="contest")
    parser.add_argument("--model", choices=SHAPES, default="small")
    parser.add_argument("--llama-cpp", type=Path, help="folder of tests/benchmarks/llama_cpp.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10, help="of the soak")
    parser.add_argument("--engine", default="onnx", help="of the soak")
    parser.add_argument("--precision", default="int4", help="of the soak")
    asked = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        model = make_model(asked.model, folder)
        if asked.what == "soak":
            soak.run(stack.enter_context(started(kit(model, asked.engine, asked.precision), folder)), asked.minutes)
        elif asked.what == "start":
            start_and_memory(model, folder, asked.model, asked.rounds)
        else:
            peers = contenders(model, folder, asked.llama_cpp and asked.llama_cpp.expanduser())
            servers = [stack.enter_context(started(contender, folder)) for contender in peers]
            report(servers, throughput(servers, asked.rounds))
            stack.pop_all().close()
            start_and_memory(model, folder, asked.model, asked.rounds)


if __name__ == "__main__":
    main()
