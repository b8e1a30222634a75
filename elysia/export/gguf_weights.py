"""A model's tensors under GGUF's names, in llama.cpp's order of rows, in the types of a file type.

InternLM2 is written as the Llama that it is in memory, its fused `wqkv` split. ggml itself quantizes
(`ggml_quantize_chunk`, which xllamacpp's library exports).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.export.shards import ShardReader
from elysia.models.architectures.internlm2 import FUSED_QKV, get_memory_name, split_wqkv
from elysia.models.loading import get_head_dim

Array = npt.NDArray[Any]
# Rows must divide into blocks: the type to use where a type's blocks are too long for a row.
FALLBACK_TYPES = {
    Type.Q4_K: Type.Q5_0,
    Type.Q6_K: Type.Q8_0,
    Type.Q5_0: Type.F16,
    Type.Q8_0: Type.F16,
}


def iter_named_tensors(shards: ShardReader, config: Any) -> Iterator[tuple[str, Tensor]]:
    """(Llama's or Qwen2's Hugging Face name, tensor) for every weight, one at a time."""
    for name in shards:
        tensor = shards.tensor(name)
        if config.model_type != "internlm2":
            yield name, tensor
            continue
        name = get_memory_name(name)
        if FUSED_QKV[0] in name:
            parts = split_wqkv(
                tensor, config.num_attention_heads, config.num_key_value_heads, get_head_dim(config)
            )
            for part, piece in zip(FUSED_QKV[1], parts, strict=True):
                yield name.replace(FUSED_QKV[0], part), piece
        else:
            yield name, tensor


def iter_gguf_tensors(
    shards: ShardReader, config: Any, architecture: gguf.MODEL_ARCH
) -> Iterator[tuple[str, Tensor]]:
    """(GGUF's name, tensor in llama.cpp's order); ExportError for a weight that GGUF has no name for."""
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    interleaved = architecture == gguf.MODEL_ARCH.LLAMA
    tied = bool(config.tie_word_embeddings)
    for name, tensor in iter_named_tensors(shards, config):
        if name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight"):
            continue
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            raise ExportError("export.no_gguf_name", folder=shards.folder, name=name)
        if interleaved and "q_proj" in name:
            tensor = interleave_heads(tensor, config.num_attention_heads)
        elif interleaved and "k_proj" in name:
            tensor = interleave_heads(tensor, config.num_key_value_heads)
        yield gguf_name, tensor


def interleave_heads(tensor: Tensor, heads: int) -> Tensor:
    """Reorder each head's rows from all first halves, then all second halves, to adjacent pairs.

    Hugging Face rotates row i with row i + d/2, llama.cpp's "llama" row 2i with row 2i + 1.
    """
    rest = tensor.shape[1:]
    halves = tensor.reshape(heads, 2, -1, *rest)
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()


def get_rope_factors(config: Any, context: int) -> tuple[float, Tensor | None]:
    """RoPE's base, and divisors of its frequencies (head_dim / 2) where a base alone is not enough.

    For dynamic NTK it is the base at length `context`; up to the trained length nothing is stretched,
    so that it is exact there. Raises ExportError for a kind that changes more than frequencies.
    """
    rope = config.rope_parameters
    kind, base, dim = (
        rope.get("rope_type", "default"),
        float(rope["rope_theta"]),
        get_head_dim(config),
    )
    if kind == "default":
        return base, None
    trained = float(rope.get("original_max_position_embeddings") or config.max_position_embeddings)
    if kind == "dynamic":
        length, factor = max(float(context), trained), float(rope["factor"])
        stretch = factor * length / trained - (factor - 1)
        return float(base * stretch ** (dim / (dim - 2))), None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if kind not in ROPE_INIT_FUNCTIONS:
        raise ExportError("export.unknown_rope", kind=kind)
    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    if not math.isclose(scale, 1.0):
        raise ExportError("export.rope_scales_attention", kind=kind)
    plain = 1.0 / base ** (torch.arange(0, dim, 2).float() / dim)
    return base, plain / frequencies.float()


def choose_type(name: str, shape: Sequence[int], file_type: str, layers: int, tied: bool) -> Type:
    """The type that a tensor is stored in.

    Vectors stay in float32. q4_k_m means 4 bits, but 6 for the tensors that lose most: the head, and
    the value and feed-forward output projections in the first and last eighth of the layers and in
    every third layer between.
    """
    if len(shape) == 1 or file_type == "f32":
        return Type.F32
    if file_type == "f16":
        return Type.F16
    chosen = Type.Q8_0
    if file_type == "q4_k_m":
        head = name == "output.weight" or (tied and name == "token_embd.weight")
        sensitive = name.endswith(("attn_v.weight", "ffn_down.weight"))
        six = head or (sensitive and _is_sensitive_layer(int(name.split(".")[1]), layers))
        chosen = Type.Q6_K if six else Type.Q4_K
    while shape[-1] % gguf.GGML_QUANT_SIZES[chosen][0]:
        chosen = FALLBACK_TYPES[chosen]
    return chosen


def _is_sensitive_layer(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def count_bytes(shape: Sequence[int], kind: Type) -> int:
    """Size of a tensor in a type, in bytes."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(shape) // block * size


def encode_tensor(tensor: Tensor, kind: Type) -> Array:
    """The bytes of a tensor in a type: float arrays, or rows of quantized blocks (uint8)."""
    values = np.ascontiguousarray(tensor.float().numpy())
    if kind == Type.F32:
        return values
    if kind == Type.F16:
        if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise ExportError("export.too_large_for_float16")
        return values.astype(np.float16)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, width = math.prod(values.shape[:-1]), values.shape[-1]
    out = np.empty((*values.shape[:-1], width // block * size), dtype=np.uint8)
    written = _load_ggml().ggml_quantize_chunk(
        int(kind), values.ctypes.data, out.ctypes.data, 0, rows, width, None
    )
    if written != out.nbytes:
        raise ExportError("export.ggml_size", kind=kind.name, written=written, expected=out.nbytes)
    return out


@lru_cache(maxsize=1)
def _load_ggml() -> ctypes.CDLL:
    import xllamacpp

    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    return library
