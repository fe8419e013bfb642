"""Safetensors to an ONNX graph that the onnx engine can run: onnxruntime-genai's exporter, and what it leaves undone.

    python -c "from pathlib import Path; from serving.onnx_builder import build; \
        build(Path('runs/latest/model/artifacts/weights'), 'float32', None, Path('/tmp/onnx'), Path('/tmp/cache'))"

Two things are mended after it. It drops Phi-3's sliding window, without which answers change once a conversation is
longer than the window. And rotary positions that depend on the longest sequence of a pass (longrope, as in Phi-3.5)
would let one answer change its neighbours': the export's context ends where they begin to differ.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

#: The exporter's names of the precisions.
NAMES = {"int4": "int4", "int8": "int8", "float32": "fp32"}
#: Architectures all of whose layers have the window that their config names; others list their layers' kinds, which
#: the exporter heeds.
WINDOWED = frozenset({"phi3", "mistral"})
#: What the exporter copies for its own runtime. The server reads those of the weights' folder: one tokenizer, one
#: template.
SPARE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


class Failed(Exception):
    """The export did not come about; nothing was changed."""


def build(weights: Path, precision: str, block: int | None, folder: Path, cache: Path) -> None:
    """Export to a folder, which is made anew.

    Args:
        block: weights that share a scale; None where nothing is quantised.
        cache: folder for the exporter's own files.

    Raises:
        Failed: the exporter does not know the architecture, or failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    # every layer's cache is as long as the context: the engine binds past and present to the same memory
    options = ["hf_token=false", "hf_remote=false", "prune_lm_head=true", "windowed_kv_cache=false"]
    if block:
        # one product for both halves of the MLP: fewer, larger passes over the weights
        options += [f"block_size={block}", "fuse_mlp_gate_up=true"]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "--input", str(weights)]
    command += ["--output", str(folder), "--precision", NAMES[precision], "--execution_provider", "cpu"]
    command += ["--cache_dir", str(cache), "--extra_options", *options]
    process = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    if process.returncode or not (folder / "model.onnx").is_file():
        words = [line.strip() for line in process.stdout.splitlines() if line.strip()]
        reason = words[-1] if words else "it said nothing"
        if process.returncode < 0:
            reason = f"it was killed by signal {-process.returncode}; 9 is often a lack of memory"
        raise Failed(f"onnxruntime-genai cannot export {weights}: {reason}")
    for name in SPARE:
        (folder / name).unlink(missing_ok=True)
    _restore_window(folder / "model.onnx", _config(weights))
    _limit_context(folder / "genai_config.json", context_of(weights))


def context_of(weights: Path) -> int:
    """Tokens of the longest sequence that an export takes: as far as positions are encoded alike in all of them."""
    config = _config(weights)
    whole = config["max_position_embeddings"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return whole
    alike = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    return min(whole, alike or whole)


def _config(weights: Path) -> dict[str, Any]:
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    return config.get("text_config", config)


def _restore_window(file: Path, config: dict[str, Any]) -> None:
    """Give every attention node the window that the model was trained with."""
    window = config.get("sliding_window")
    if not window or window >= config["max_position_embeddings"] or config.get("model_type") not in WINDOWED:
        return
    import onnx

    # the graph alone: its weights stay in the file beside it
    graph = onnx.load(file, load_external_data=False)
    nodes = [node for node in graph.graph.node if node.op_type == "GroupQueryAttention"]
    for node in nodes:
        for attribute in [each for each in node.attribute if each.name == "local_window_size"]:
            node.attribute.remove(attribute)
        node.attribute.append(onnx.helper.make_attribute("local_window_size", window))
    if len(nodes) != config["num_hidden_layers"]:
        raise Failed(f"{file.name}: has {len(nodes)} attention nodes for {config['num_hidden_layers']} layers")
    onnx.save(graph, file)


def _limit_context(file: Path, limit: int) -> None:
    """Say in genai_config.json how long a sequence may be."""
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["context_length"] = limit
    file.write_text(json.dumps(content, indent=4), encoding="utf-8")
