"""AWQ's packed weights and what they stand for (https://arxiv.org/abs/2306.00978, "gemm" layout).

A linear layer of `inputs` and `outputs` is stored as qweight (inputs, outputs / 8) int32, scales
(inputs / group, outputs) float16 and qzeros (inputs / group, outputs / 8) int32. The arithmetic of
LMDeploy's kernels needs a GPU; here the weights are spread out again. Knows nothing of how the
4 bits were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from elysia.core.errors import ModelError

BITS, GROUP = 4, 128
EACH = 32 // BITS  # numbers in a word
# The k-th four bits of a word, from the lowest, hold the number at this place among the word's eight.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PARTS = ("qweight", "qzeros", "scales")


def unpack(words: Tensor) -> Tensor:
    """Numbers 0 to 15 (rows, columns * 8), uint8, out of int32 words (rows, columns)."""
    shifts = torch.tensor([BITS * ORDER.index(place) for place in range(EACH)], dtype=torch.int32)
    numbers: Tensor = (words.unsqueeze(-1) >> shifts) & (2**BITS - 1)
    return numbers.to(torch.uint8).flatten(1)


def pack(numbers: Tensor) -> Tensor:
    """The inverse of `unpack`."""
    eights = numbers.to(torch.int64).unflatten(1, (-1, EACH))
    words = torch.zeros_like(eights[..., 0])
    for k, place in enumerate(ORDER):
        words |= eights[..., place] << (BITS * k)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).contiguous()


def dequantize(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> Tensor:
    """The weight (outputs, inputs), float32."""
    group = qweight.shape[0] // scales.shape[0]
    zeros = unpack(qzeros).float().repeat_interleave(group, 0)
    weight = (unpack(qweight).float() - zeros) * scales.float().repeat_interleave(group, 0)
    return weight.t().contiguous()


def is_awq(config: Any) -> bool:
    """Whether a model's config (transformers') says that its weights are AWQ's."""
    found = getattr(config, "quantization_config", None)
    return isinstance(found, dict) and found.get("quant_method") == "awq"


def refuse_other_layout(config: Any, folder: Path) -> None:
    """ModelError for AWQ of another layout or width than is read here."""
    found = config.quantization_config
    if found.get("bits") != BITS or str(found.get("version", "gemm")).lower() != "gemm":
        raise ModelError(
            f"{folder} holds AWQ weights of {found.get('bits')} bits in the layout "
            f"'{found.get('version')}'; only {BITS} bits in 'gemm' are read."
        )


def plain_tensors(folder: Path, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """(name as in an unquantized folder, tensor in `dtype`) of an AWQ folder, file by file.

    The parts of one layer must lie in one file, or in the order of their files.
    """
    waiting: dict[str, dict[str, Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                layer, _, part = name.rpartition(".")
                tensor = file.get_tensor(name)
                if part not in PARTS:
                    yield name, tensor.to(dtype) if tensor.is_floating_point() else tensor
                    continue
                parts = waiting.setdefault(layer, {})
                parts[part] = tensor
                if len(parts) == len(PARTS):
                    yield f"{layer}.weight", dequantize(**waiting.pop(layer)).to(dtype)
    if waiting:
        layer, parts = next(iter(waiting.items()))
        lacking = ", ".join(part for part in PARTS if part not in parts)
        raise ModelError(f"{folder}: {layer} lacks {lacking}. The folder is incomplete.")
