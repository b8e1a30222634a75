"""Scaled rotary positions in a GGUF, as transformers' config says them. transformers' reader ignores them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from elysia.models.gguf.gguf_reader import GgufTensorInfo

log = logging.getLogger(__name__)

FREQUENCY_FACTORS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
# Tensors that hold no weights: divisors of rotary frequencies.
EXTRA_TENSORS = (FREQUENCY_FACTORS, LONG_FACTORS, SHORT_FACTORS)
# Llama 3.1 and its successors all have these; only the factor differs (8, or 32 in 3.2).
LLAMA3_CONSTANTS = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read_rope_scaling(
    file: Path, config: Any, header: Mapping[str, Any], tensors: list[GgufTensorInfo]
) -> dict[str, Any]:
    """The entries of `rope_parameters` that scale positions; empty for a model that does not.

    Factors by frequency are Llama 3's where they are what its formula gives, and are warned of where not.
    """
    offsets = {info.name: info for info in tensors}
    architecture = header["general.architecture"]
    prefix = f"{architecture}.rope.scaling."
    trained = header.get(prefix + "original_context_length")
    if LONG_FACTORS in offsets and SHORT_FACTORS in offsets:
        return {
            "rope_type": "longrope",
            "long_factor": _read_floats(file, offsets[LONG_FACTORS]).tolist(),
            "short_factor": _read_floats(file, offsets[SHORT_FACTORS]).tolist(),
            "original_max_position_embeddings": int(trained or 4096),
        }
    if FREQUENCY_FACTORS in offsets:
        return _build_llama3(file, config, _read_floats(file, offsets[FREQUENCY_FACTORS]))
    kind, factor = header.get(prefix + "type"), float(header.get(prefix + "factor", 0.0))
    if kind == "linear" and factor > 1:
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and factor > 1:
        original = int(trained or config.max_position_embeddings / factor)
        return {
            "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original
        }  # fmt: skip
    return {}


def _read_floats(file: Path, info: GgufTensorInfo) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.fromfile(file, np.float32, count=info.shape[-1], offset=info.offset)


def _build_llama3(file: Path, config: Any, factors: np.ndarray[Any, Any]) -> dict[str, Any]:
    scaling = {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3_CONSTANTS}
    if np.allclose(factors, 1.0):
        return {}
    plain = config.rope_parameters
    config.rope_parameters = {**plain, **scaling}
    try:
        frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    finally:
        config.rope_parameters = plain
    width = len(factors)
    base = float(plain["rope_theta"]) ** (-np.arange(width) / width)
    if not np.allclose(base / factors, frequencies.numpy(), rtol=1e-3):
        log.warning(
            "%s scales rotary positions in a way that is not Llama 3's: long texts may come out worse.",
            file,
        )
    return scaling
