"""A model's tensors under GGUF's names, in llama.cpp's order of rows, in the types of a file type.

InternLM2 is written as the Llama it is in memory, its fused `wqkv` split. Quantizing is ggml's own
(`ggml_quantize_chunk`, which xllamacpp's library exports). Knows nothing of vocabularies.
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
from elysia.models.architectures.internlm2 import FUSED_QKV, KEY_RENAMES, split_wqkv

Array = npt.NDArray[Any]
# Rows must split into blocks: what takes the place of a type whose blocks are too long for a row.
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
        for theirs, ours in KEY_RENAMES:
            name = name.replace(theirs, ours)
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
    """(GGUF's name, tensor in llama.cpp's order); ExportError for a weight that has no place."""
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    interleaved = architecture == gguf.MODEL_ARCH.LLAMA
    tied = bool(config.tie_word_embeddings)
    for name, tensor in iter_named_tensors(shards, config):
        if name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight"):
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ExportError(
                f"{shards.folder} holds {name}, which has no place in a GGUF of this architecture. "
                "Only plain InternLM2, Llama and Qwen2 are written."
            )
        if interleaved and "q_proj" in name:
            tensor = interleave_heads(tensor, config.num_attention_heads)
        elif interleaved and "k_proj" in name:
            tensor = interleave_heads(tensor, config.num_key_value_heads)
        yield found, tensor


def interleave_heads(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head from (all first halves, all second halves) to pairs, side by side.

    Hugging Face rotates row i with row i + d/2, llama.cpp's "llama" row 2i with row 2i + 1.
    """
    rest = tensor.shape[1:]
    halves = tensor.reshape(heads, 2, -1, *rest)
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()


def get_head_dim(config: Any) -> int:
    """The width of one attention head."""
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def get_rope_factors(config: Any, context: int) -> tuple[float, Tensor | None]:
    """RoPE's base, and divisors of its frequencies (get_head_dim / 2) where a base alone does not tell.

    Dynamic NTK: the base that it has at length `context`, exact up to the trained length when that
    is asked for, since nothing is stretched there. ExportError for a kind that changes more than
    frequencies.
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
        raise ExportError(f"RoPE of type '{kind}' is not known: no GGUF can be written.")
    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    if not math.isclose(scale, 1.0):
        raise ExportError(
            f"RoPE of type '{kind}' also scales attention, which is not written to GGUF here."
        )
    plain = 1.0 / base ** (torch.arange(0, dim, 2).float() / dim)
    return base, plain / frequencies.float()


def choose_type(name: str, shape: Sequence[int], file_type: str, layers: int, tied: bool) -> Type:
    """The type that a tensor is stored in.

    Vectors stay in float32. q4_k_m is 4 bits with the tensors that suffer most in 6: the head, and
    in the first and last eighth of the layers and every third between, the values and the
    feed-forward's way out.
    """
    if len(shape) == 1 or file_type == "f32":
        return Type.F32
    if file_type == "f16":
        return Type.F16
    wanted = Type.Q8_0
    if file_type == "q4_k_m":
        head = name == "output.weight" or (tied and name == "token_embd.weight")
        tender = name.endswith(("attn_v.weight", "ffn_down.weight"))
        six = head or (tender and _is_sensitive_layer(int(name.split(".")[1]), layers))
        wanted = Type.Q6_K if six else Type.Q4_K
    while shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0]:
        wanted = FALLBACK_TYPES[wanted]
    return wanted


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
            raise ExportError(
                "A weight is too large for float16 (65504). Write --type f32 or q8_0 instead."
            )
        return values.astype(np.float16)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, width = math.prod(values.shape[:-1]), values.shape[-1]
    out = np.empty((*values.shape[:-1], width // block * size), dtype=np.uint8)
    written = _load_ggml().ggml_quantize_chunk(
        int(kind), values.ctypes.data, out.ctypes.data, 0, rows, width, None
    )
    if written != out.nbytes:
        raise ExportError(f"ggml wrote {written} bytes of {kind.name} instead of {out.nbytes}.")
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
