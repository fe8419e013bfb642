"""How much memory a recipe needs on the device that trains, estimated from the model's shape.

    python memory.py phi3_5_mini_lora        # the recipe's line, as in its header

Weights, gradients, optimizer states and activations are counted separately. Activations follow what transformers' Phi-3
layer keeps for its backward pass; tests compare the sum with a measured run.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from errors import BadInput, exit_code

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from recipe import Recipe

GIB = 1024**3
#: What the framework takes before any tensor: libraries and thread pools, or a CUDA context with its workspaces.
FRAMEWORK = {"cpu": int(0.6 * GIB), "cuda": int(1.0 * GIB)}
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, None: 4, "auto": 4}


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder that memory depends on; `parameters` counts tied embeddings once."""

    parameters: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int

    @classmethod
    def of(cls, config: PretrainedConfig, parameters: int) -> Shape:
        """The shape that a transformers config describes; without an inner width it is four times the outer."""
        config = config.get_text_config()
        return cls(
            parameters,
            config.hidden_size,
            getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.vocab_size,
        )


PHI3_MINI = Shape(3_821_079_552, 3072, 8192, 32, 32, 32064)
#: The models that recipes name; any other one's shape comes from its config.
SHAPES = {
    "tiny": Shape(2_041_536, 192, 512, 4, 6, 1408),
    "microsoft/Phi-3.5-mini-instruct": PHI3_MINI,
    "microsoft/Phi-3-mini-4k-instruct": PHI3_MINI,
}


@dataclass(frozen=True)
class Memory:
    """Bytes, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    framework: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.framework

    def line(self) -> str:
        """One line for a recipe's header."""
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
        }
        return f"about {_size(self.total)} ({', '.join(f'{name} {_size(size)}' for name, size in parts.items())})"


def estimate(shape: Shape, values: dict[str, Any], device: str) -> Memory:
    """Peak memory of training on one device.

    Args:
        shape: the model's.
        values: a recipe's keys.
        device: `cuda` or `cpu`; on a CPU half precision becomes float32, as it does when the recipe runs.
    """
    width = BYTES[values.get("dtype")] if device == "cuda" else 4
    embeddings = shape.vocabulary * shape.hidden * 2
    weights = shape.parameters * width
    if values.get("load_in_4bit"):
        # 4 bits a weight and, without nested quantisation, one float32 scale for each 64
        weights = int((shape.parameters - embeddings) * (0.52 if values.get("use_bnb_nested_quant") else 0.56))
        weights += embeddings * 2
    trainable, adapter_width = shape.parameters, width
    if values.get("use_peft"):
        trainable, adapter_width = _lora_parameters(shape, values), 2 if values.get("load_in_4bit") else 4
        weights += trainable * adapter_width
    activations = _activations(shape, values, device, width)
    return Memory(weights, trainable * adapter_width, 2 * trainable * adapter_width, activations, FRAMEWORK[device])


def estimate_run(recipe: Recipe, config: PretrainedConfig, parameters: int) -> Memory:
    """The same for a loaded recipe and model, on the device that this process trains on."""
    import torch

    return estimate(Shape.of(config, parameters), recipe.values, "cuda" if torch.cuda.is_available() else "cpu")


def _lora_parameters(shape: Shape, values: dict[str, Any]) -> int:
    """r rows and columns for each adapted matrix of Phi-3's fused layers."""
    sides = {
        "qkv_proj": shape.hidden + 3 * shape.hidden,
        "o_proj": 2 * shape.hidden,
        "gate_up_proj": shape.hidden + 2 * shape.intermediate,
        "down_proj": shape.intermediate + shape.hidden,
    }
    targets = values.get("lora_target_modules") or list(sides)
    return values.get("lora_r", 16) * shape.layers * sum(sides.get(name, 2 * shape.hidden) for name in targets)


def _activations(shape: Shape, values: dict[str, Any], device: str, width: int) -> int:
    length = values.get("max_length") or 1024
    tokens = length * values.get("per_device_train_batch_size", 8)
    # inputs of the four projections, of both norms (kept in float32 too), the rotated queries and keys, the gate
    layer = tokens * (12 * shape.hidden + 4 * shape.intermediate) * width + tokens * 2 * shape.hidden * 4
    if values.get("use_peft") and values.get("lora_dropout", 0.05):
        # dropout before each adapter keeps its mask (a byte each) and what it let through
        layer += tokens * (3 * shape.hidden + shape.intermediate) * (width + 1)
    gradients = 0
    if values.get("attn_implementation") == "eager":
        # the scores' softmax in float32 and, where that is another one, in the weights' precision; one layer's
        # gradients of both at a time
        scores = tokens * length * shape.heads
        layer += scores * (4 + (width if width < 4 else 0))
        gradients = scores * (4 + width)
    if values.get("activation_checkpointing"):
        kept = tokens * shape.hidden * width * shape.layers + layer
    else:
        kept = layer * shape.layers
    # off the GPU: logits, their softmax and their gradient; on it the head works in tiles
    head = tokens * shape.vocabulary * 4 * 3 if device == "cpu" else tokens * shape.hidden * 4 * 2
    return kept + gradients + head


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 1024**2:.0f} MiB"


def available_memory() -> int | None:
    """Free bytes of the device that trains; None where the system does not tell."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def peak_memory() -> int:
    """Most bytes held so far: of the GPU, or of this process."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Print the memory of the recipes named on the command line, or of all."""
    from recipe import FOLDER, read_recipe

    parser = argparse.ArgumentParser(
        description="Estimate the memory that recipes need.", epilog="python memory.py tiny_cpu"
    )
    parser.add_argument("recipes", nargs="*", help="names or paths; default: all of recipes/")
    for name in parser.parse_args().recipes or sorted(path.stem for path in FOLDER.glob("*.yaml")):
        print(f"{name}: {recipe_memory(read_recipe(name)[1]).line()}")
    return 0


def recipe_memory(values: dict[str, Any]) -> Memory:
    """The estimate for a recipe as written, on the device that it is meant for."""
    name = values.get("model_name_or_path")
    if name not in SHAPES:
        raise BadInput(f"model {name}: shape unknown before it is loaded; known: {', '.join(SHAPES)}")
    return estimate(SHAPES[name], values, "cuda" if values.get("dtype") == "bfloat16" else "cpu")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))
