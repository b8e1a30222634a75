"""What a QLoRA training saw in place of the base's weights: NF4, there and back.

QLoRA (https://arxiv.org/abs/2305.14314) trains an adapter over weights that were rounded to 4 bits.
Merged onto the unrounded base, the adapter meets other weights than it learned on; the drift says
how far they are apart. Knows nothing of files or adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

BLOCK = 64  # weights that share a scale; bitsandbytes' own default, and so the training's


@dataclass
class Drift:
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


def dequantized(weight: Tensor, dtype: torch.dtype, double_quant: bool) -> Tensor:
    """`weight` after NF4, in `dtype`: the dtype in which the training loaded it before rounding."""
    from bitsandbytes import functional

    loaded = weight.to(dtype).contiguous()
    packed, state = functional.quantize_4bit(
        loaded, blocksize=BLOCK, compress_statistics=double_quant, quant_type="nf4"
    )
    restored: Tensor = functional.dequantize_4bit(packed, state)
    return restored.reshape(weight.shape)


def quantized_modules(config: Any) -> set[str]:
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
