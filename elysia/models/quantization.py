"""Two faults of bitsandbytes 0.50's 4-bit layers on a CPU with avx512_bf16, and the way round both.

There, the first forward in eval mode without gradients repacks a layer for speed. The packed
layer has no backward, and a layer of some shapes cannot be packed at all. Knows nothing of
adapters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from elysia.core.errors import ModelError

PACKED_ROWS, PACKED_COLUMNS = 32, 64  # a packed layer's sizes are multiples of these


def keep_nf4_trainable(model: Any) -> int:
    """Keep 4-bit layers in the layout that gradients pass through; returns how many there are.

    Otherwise training after one evaluation goes on without the gradients of everything below a
    packed layer, with a warning at most; and asking a packed model for its state dict requantizes
    the base slightly differently. Layers that are packed already are unpacked, which cannot undo
    that rounding: call this before the first forward.
    """
    layers = _get_4bit_layers(model)
    for layer in layers:
        _disable_cpu_packing(layer)
    return len(layers)


def keep_odd_shapes_unpacked(model: Any) -> None:
    """Spare layers that cannot be packed from the attempt, which would end the program."""
    for layer in _get_4bit_layers(model):
        if layer.out_features % PACKED_ROWS or layer.in_features % PACKED_COLUMNS:
            _disable_cpu_packing(layer)


def _get_4bit_layers(model: Any) -> list[Any]:
    if "bitsandbytes" not in sys.modules:
        return []  # nobody can have made one
    from bitsandbytes.nn.modules import Linear4bit

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def _disable_cpu_packing(layer: Any) -> None:
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse as unpack

    layer.support_avx512bf16_for_cpu = False
    state: Any = getattr(layer.weight, "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        layer.weight.data, layer.weight.quant_state = unpack(layer.weight.data, state)
        layer.quant_state = layer.weight.quant_state


NF4_BLOCK_SIZE = 64  # weights that share a scale; bitsandbytes' own default, and so the training's


@dataclass
class QuantizationDrift:
    """How far the dequantized weights lie from the original ones, over all that were quantized."""

    squared: float = 0.0
    reference: float = 0.0
    largest: float = 0.0
    weights: int = 0

    def add(self, original: Tensor, dequantized: Tensor) -> None:
        """Count one module's weight."""
        difference = (dequantized.float() - original.float()).double()
        self.squared += float(difference.square().sum())
        self.reference += float(original.double().square().sum())
        self.largest = max(self.largest, float(difference.abs().max()))
        self.weights += original.numel()

    @property
    def relative(self) -> float:
        """Frobenius norm of the difference over that of the original."""
        return sqrt(self.squared / self.reference) if self.reference else 0.0

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for a report."""
        return {"relative": self.relative, "max": self.largest}


def round_trip_nf4(weight: Tensor, dtype: torch.dtype, double_quant: bool) -> Tensor:
    """`weight` after NF4, in `dtype`: the dtype in which the training loaded it before rounding."""
    from bitsandbytes import functional

    loaded = weight.to(dtype).contiguous()
    packed, state = functional.quantize_4bit(
        loaded, blocksize=NF4_BLOCK_SIZE, compress_statistics=double_quant, quant_type="nf4"
    )
    restored: Tensor = functional.dequantize_4bit(packed, state)
    return restored.reshape(weight.shape)


def get_quantized_modules(config: Any) -> set[str]:
    """Names of the layers that a 4-bit load quantizes: transformers' own choice, tried on a model
    without memory.
    """
    from bitsandbytes.nn.modules import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    quantizer = AutoHfQuantizer.from_config(BitsAndBytesConfig(load_in_4bit=True))
    quantizer.preprocess_model(model=model, device_map={"": "cpu"})
    return {name for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def dequantize_model(model: Any) -> Any:
    """A model of transformers that was loaded in 4 bits, with plain layers of the same weights.

    To be called before the first forward, which may repack a layer on the CPU.
    """
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it warns of the dtype that was asked for
    try:
        return model.dequantize()
    finally:
        transformers_logging.set_verbosity(level)


AWQ_BITS, AWQ_GROUP_SIZE = 4, 128
VALUES_PER_WORD = 32 // AWQ_BITS  # numbers in a word
# The k-th four bits of a word, from the lowest, hold the number at this place among the word's eight.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
AWQ_PARTS = ("qweight", "qzeros", "scales")


def unpack_awq(words: Tensor) -> Tensor:
    """Numbers 0 to 15 (rows, columns * 8), uint8, out of int32 words (rows, columns)."""
    shifts = torch.tensor(
        [AWQ_BITS * AWQ_ORDER.index(place) for place in range(VALUES_PER_WORD)], dtype=torch.int32
    )
    numbers: Tensor = (words.unsqueeze(-1) >> shifts) & (2**AWQ_BITS - 1)
    return numbers.to(torch.uint8).flatten(1)


def pack_awq(numbers: Tensor) -> Tensor:
    """The inverse of `unpack_awq`."""
    eights = numbers.to(torch.int64).unflatten(1, (-1, VALUES_PER_WORD))
    words = torch.zeros_like(eights[..., 0])
    for k, place in enumerate(AWQ_ORDER):
        words |= eights[..., place] << (AWQ_BITS * k)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).contiguous()


def dequantize_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Tensor:
    """The weight (outputs, inputs), float32."""
    group = qweight.shape[0] // scales.shape[0]
    zeros = unpack_awq(qzeros).float().repeat_interleave(group, 0)
    weight = (unpack_awq(qweight).float() - zeros) * scales.float().repeat_interleave(group, 0)
    return weight.t().contiguous()


def is_awq(config: Any) -> bool:
    """Whether a model's config (transformers') says that its weights are AWQ's."""
    found = getattr(config, "quantization_config", None)
    return isinstance(found, dict) and found.get("quant_method") == "awq"


def check_awq_layout(config: Any, folder: Path) -> None:
    """ModelError for AWQ of another layout or width than is read here."""
    found = config.quantization_config
    if found.get("bits") != AWQ_BITS or str(found.get("version", "gemm")).lower() != "gemm":
        raise ModelError(
            f"{folder} holds AWQ weights of {found.get('bits')} bits in the layout "
            f"'{found.get('version')}'; only {AWQ_BITS} bits in 'gemm' are read."
        )


def iter_awq_tensors(folder: Path, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """(name as in an unquantized folder, tensor in `dtype`) of an AWQ folder, file by file.

    The parts of one layer must lie in one file, or in the order of their files.
    """
    waiting: dict[str, dict[str, Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                layer, _, part = name.rpartition(".")
                tensor = file.get_tensor(name)
                if part not in AWQ_PARTS:
                    yield name, tensor.to(dtype) if tensor.is_floating_point() else tensor
                    continue
                parts = waiting.setdefault(layer, {})
                parts[part] = tensor
                if len(parts) == len(AWQ_PARTS):
                    yield f"{layer}.weight", dequantize_awq(**waiting.pop(layer)).to(dtype)
    if waiting:
        layer, parts = next(iter(waiting.items()))
        lacking = ", ".join(part for part in AWQ_PARTS if part not in parts)
        raise ModelError(f"{folder}: {layer} lacks {lacking}. The folder is incomplete.")
