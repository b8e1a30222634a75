"""Two faults of bitsandbytes 0.50's 4-bit layers on a CPU with avx512_bf16, and the way round both.

There, the first forward in eval mode without gradients repacks a layer for speed. The packed
layer has no backward, and a layer of some shapes cannot be packed at all. Knows nothing of
adapters.
"""

from __future__ import annotations

import sys
from typing import Any

ROWS, COLUMNS = 32, 64  # a packed layer's sizes are multiples of these


def keep_nf4_trainable(model: Any) -> int:
    """Keep 4-bit layers in the layout that gradients pass through; returns how many there are.

    Otherwise training after one evaluation goes on without the gradients of everything below a
    packed layer, with a warning at most; and asking a packed model for its state dict requantizes
    the base slightly differently. Layers that are packed already are unpacked, which cannot undo
    that rounding: call this before the first forward.
    """
    layers = _layers(model)
    for layer in layers:
        _keep(layer)
    return len(layers)


def keep_odd_shapes_unpacked(model: Any) -> None:
    """Spare layers that cannot be packed from the attempt, which would end the program."""
    for layer in _layers(model):
        if layer.out_features % ROWS or layer.in_features % COLUMNS:
            _keep(layer)


def _layers(model: Any) -> list[Any]:
    if "bitsandbytes" not in sys.modules:
        return []  # nobody can have made one
    from bitsandbytes.nn.modules import Linear4bit

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def _keep(layer: Any) -> None:
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse as unpack

    layer.support_avx512bf16_for_cpu = False
    state: Any = getattr(layer.weight, "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        layer.weight.data, layer.weight.quant_state = unpack(layer.weight.data, state)
        layer.quant_state = layer.weight.quant_state
