"""Weights of 4 bits: NF4 as bitsandbytes stores it, and AWQ's packed form.

NF4 (QLoRA, https://arxiv.org/abs/2305.14314): what training saw in place of the base's weights, and
how to avoid two faults of bitsandbytes' 4-bit layers on a CPU. AWQ (https://arxiv.org/abs/2306.00978,
layout "gemm"): packing, unpacking and reading. A linear layer of `inputs` and `outputs` is stored as
qweight (inputs, outputs / 8) int32, scales (inputs / group, outputs) float16 and qzeros
(inputs / group, outputs / 8) int32. LMDeploy computes with these on a GPU; here they are expanded.
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
from elysia.models.saving import quiet_transformers

NF4_BLOCK_SIZE = 64  # weights that share a scale: the default of bitsandbytes, and so of training
PACKED_ROWS, PACKED_COLUMNS = (
    32,
    64,
)  # the sizes of a layer packed for the CPU are multiples of these

AWQ_BITS, AWQ_GROUP_SIZE = 4, 128
VALUES_PER_WORD = 32 // AWQ_BITS
# The k-th four bits of a word, from the lowest, hold the value at this index among the word's eight.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
AWQ_PARTS = ("qweight", "qzeros", "scales")


@dataclass
class QuantizationDrift:
    """How far the dequantized weights are from the original ones, over all quantized modules."""

    squared: float = 0.0
    reference: float = 0.0
    largest: float = 0.0
    weights: int = 0

    def add(self, original: Tensor, dequantized: Tensor) -> None:
        """Count the weight of one module."""
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
    """`weight` after NF4 and back, in `dtype`: the dtype in which training loaded it before rounding."""
    from bitsandbytes import functional

    loaded = weight.to(dtype).contiguous()
    packed, state = functional.quantize_4bit(
        loaded, blocksize=NF4_BLOCK_SIZE, compress_statistics=double_quant, quant_type="nf4"
    )
    restored: Tensor = functional.dequantize_4bit(packed, state)
    return restored.reshape(weight.shape)


def get_quantized_modules(config: Any) -> set[str]:
    """Names of the layers that a 4-bit load quantizes.

    The choice is transformers' own, made on a model without memory for its weights.
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
    """A transformers model that was loaded in 4 bits, with plain layers of the same weights.

    Call it before the first forward, which may repack layers on a CPU.
    """
    with quiet_transformers():  # it warns about the dtype, which was asked for
        return model.dequantize()


def keep_nf4_trainable(model: Any) -> int:
    """Keep 4-bit layers in the layout that gradients pass through; returns how many there are.

    On a CPU with avx512_bf16, bitsandbytes 0.50 repacks a 4-bit layer for speed at its first forward
    in eval mode without gradients. The packed layer has no backward: after one evaluation, training
    would go on without the gradients of everything below it, with a warning at most. The state dict
    of a packed model is also requantized slightly differently. Layers that are packed already are
    unpacked, which cannot undo that rounding: call this before the first forward.
    """
    layers = _get_4bit_layers(model)
    for layer in layers:
        _disable_cpu_packing(layer)
    return len(layers)


def keep_odd_shapes_unpacked(model: Any) -> None:
    """Exempt layers whose shape cannot be packed on a CPU; the attempt would end the program."""
    for layer in _get_4bit_layers(model):
        if layer.out_features % PACKED_ROWS or layer.in_features % PACKED_COLUMNS:
            _disable_cpu_packing(layer)


def _get_4bit_layers(model: Any) -> list[Any]:
    if "bitsandbytes" not in sys.modules:
        return []  # without the library no such layer can exist, and importing it takes seconds
    from bitsandbytes.nn.modules import Linear4bit

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def _disable_cpu_packing(layer: Any) -> None:
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse as unpack

    layer.support_avx512bf16_for_cpu = False
    state: Any = getattr(layer.weight, "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        layer.weight.data, layer.weight.quant_state = unpack(layer.weight.data, state)
        layer.quant_state = layer.weight.quant_state


def unpack_awq(words: Tensor) -> Tensor:
    """Values 0 to 15 (rows, columns * 8), uint8, out of int32 words (rows, columns)."""
    shifts = [AWQ_BITS * AWQ_ORDER.index(place) for place in range(VALUES_PER_WORD)]
    values: Tensor = (words.unsqueeze(-1) >> torch.tensor(shifts, dtype=torch.int32)) & (
        2**AWQ_BITS - 1
    )
    return values.to(torch.uint8).flatten(1)


def pack_awq(values: Tensor) -> Tensor:
    """The inverse of `unpack_awq`."""
    groups = values.to(torch.int64).unflatten(1, (-1, VALUES_PER_WORD))
    words = torch.zeros_like(groups[..., 0])
    for k, place in enumerate(AWQ_ORDER):
        words |= groups[..., place] << (AWQ_BITS * k)
    # From unsigned to signed words of the same bits.
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).contiguous()


def dequantize_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Tensor:
    """The weight (outputs, inputs), float32."""
    group = qweight.shape[0] // scales.shape[0]
    zeros = unpack_awq(qzeros).float().repeat_interleave(group, 0)
    weight = (unpack_awq(qweight).float() - zeros) * scales.float().repeat_interleave(group, 0)
    return weight.t().contiguous()


def is_awq(config: Any) -> bool:
    """Whether the weights that a transformers config describes are AWQ's."""
    quantization = getattr(config, "quantization_config", None)
    return isinstance(quantization, dict) and quantization.get("quant_method") == "awq"


def check_awq_layout(config: Any, folder: Path) -> None:
    """ModelError for AWQ weights in another layout or width than can be read here."""
    quantization = config.quantization_config
    bits, layout = quantization.get("bits"), quantization.get("version", "gemm")
    if bits != AWQ_BITS or str(layout).lower() != "gemm":
        raise ModelError(
            "models.awq_layout", folder=folder, bits=bits, layout=layout, supported=AWQ_BITS
        )


def iter_awq_tensors(folder: Path, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """(name as in an unquantized folder, tensor in `dtype`) of an AWQ folder, file by file.

    The parts of a layer may be spread over files: they wait until all three have been read.
    """
    waiting: dict[str, dict[str, Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a dict
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
        missing = [part for part in AWQ_PARTS if part not in parts]
        raise ModelError("models.awq_incomplete", folder=folder, layer=layer, missing=missing)
