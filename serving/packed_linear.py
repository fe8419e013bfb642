"""Linear layers whose weights are laid out once for oneDNN: on a CPU up to three times torch's own, from 1 row to 64.

    packed = pack(model, folder)        # in place; how many layers were packed

torch hands a float32 product to MKL, with the weight in the layout that it was saved in, on every pass. oneDNN's own
layout is made once, and read as fast as memory gives it. The operators are those that torch's compiler uses for frozen
weights; where a build of torch lacks them, or they refuse a layer, that layer stays as it is.

Imported by serving/transformers_engine.py once it loads: this module imports torch at its top.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import safe_open

#: Rows that the layout is made for; measured to be good for 1 as for 64.
ROWS = 16
#: Types of weights that are packed, with how many numbers make it worth it: below, a call costs more than it saves.
SMALLEST = {torch.float32: 2**17, torch.bfloat16: 1}


class PackedLinear(torch.nn.Module):
    """A linear layer with its weight in oneDNN's layout; it cannot be saved or trained."""

    def __init__(self, layer: torch.nn.Linear, weight: torch.Tensor) -> None:
        """Pack `weight`, which is that of `layer`.

        Raises:
            AttributeError, RuntimeError: this torch, or this CPU, has no such product.
        """
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        # not buffers: the layout is oneDNN's secret, which `to` and `state_dict` cannot handle
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self._product = torch.ops.mkldnn._linear_pointwise
        self(weight.new_zeros(1, layer.in_features))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """What torch.nn.Linear computes, to rounding."""
        return self._product(rows, self._packed, self._bias, "none", [], "")


@torch.no_grad()
def pack(model: torch.nn.Module, folder: Path | None = None) -> int:
    """Replace the linear layers of a CPU model, one by one: never two copies of more than one layer's weight.

    Args:
        model: loaded; its weights may be mapped from files, not read yet.
        folder: of the safetensors that it was loaded from. Each weight is then read from there through a mapping of its
            own, which goes when it is packed; the model's mapping would keep all that was read in memory to the end.

    Returns:
        How many were replaced.
    """
    files = _files(folder) if folder else {}
    count = 0
    # (not subclasses: quantised layers and adapters have products of their own)
    layers = [(name, layer) for name, layer in model.named_modules() if type(layer) is torch.nn.Linear]
    for name, layer in layers:
        if layer.weight.device.type != "cpu" or layer.weight.numel() < SMALLEST.get(layer.weight.dtype, math.inf):
            continue
        try:
            packed = PackedLinear(layer, _weight(files, f"{name}.weight", layer.weight.detach()))
        except (AttributeError, RuntimeError):
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, packed)
        # a weight that is tied lives on where it is shared; any other ends here
        layer.weight = None
        count += 1
    return count


def _files(folder: Path) -> dict[str, Path]:
    """Which file holds a weight, by its name."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            found.update(dict.fromkeys(weights.keys(), file))
    return found


def _weight(files: dict[str, Path], name: str, loaded: torch.Tensor) -> torch.Tensor:
    """The weight read from its file, or as loaded where that was converted, or made of several."""
    file = files.get(name)
    if file is None:
        return loaded
    with safe_open(file, framework="pt") as weights:
        saved = weights.get_tensor(name)
    same = saved.shape == loaded.shape and saved.dtype == loaded.dtype and torch.equal(saved[:1], loaded[:1])
    return saved if same else loaded
