"""Liger's Triton kernels (https://arxiv.org/abs/2410.10989) for RMSNorm, rotary embedding and SwiGLU.

They are put into the modules of one model; transformers' classes stay as they are. Liger's loss is not used:
that of `chunked_loss.py` makes no full logits either, and scores only labelled positions.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2RMSNorm

from elysia.core.errors import ModelError
from elysia.core.i18n import Text
from elysia.train.kernels.fused_lora import GATED_MLPS

MODEL_TYPES = ("internlm2", "llama", "qwen2")  # InternLM2 here is a Llama
PACKAGE = "liger-kernel==0.8.5"
NORMS = (LlamaRMSNorm, Qwen2RMSNorm)
ATTENTION = (LlamaAttention, Qwen2Attention)
ROTATE = "apply_rotary_pos_emb"  # what transformers' attention calls it


def missing_requirement(device: str) -> Text | None:
    """What the kernels need and do not find; None when nothing is missing."""
    if device != "cuda":
        return Text("train.lacks_gpu_for_liger")
    if not find_spec("triton"):
        return Text("train.lacks_triton")
    if not find_spec("liger_kernel"):
        return Text("train.lacks_liger", {"package": PACKAGE})
    return None


def patch_model(model: nn.Module) -> dict[str, int]:
    """Put the kernels into `model`; returns how many norms, attentions and gated MLPs have them.

    Call it after `fused_lora.patch_lora_and_mlp`, whose gates it replaces. ModelError when transformers'
    attention is not written as it was.
    """
    rotating: dict[Any, FunctionType] = {kind: _with_liger_rotation(kind) for kind in ATTENTION}
    counts = {"norms": 0, "attentions": 0, "gates": 0}
    for module in model.modules():
        layer: Any = module
        if type(module) in NORMS:
            layer.forward, group = MethodType(_rms_norm_forward, module), "norms"
        elif type(module) in rotating:
            layer.forward, group = MethodType(rotating[type(module)], module), "attentions"
        elif type(module) in GATED_MLPS and layer.config.hidden_act in ("silu", "swish"):
            layer.forward, group = MethodType(_gated_mlp_forward, module), "gates"
        else:
            continue
        counts[group] += 1
    return counts


def _with_liger_rotation(kind: Any) -> FunctionType:
    """The class's own forward, with Liger's rotation under the name that it calls."""
    forward = kind.forward
    if ROTATE not in forward.__code__.co_names:
        raise ModelError("train.liger_attention", attention=kind.__name__, function=ROTATE)
    names = {**forward.__globals__, ROTATE: _apply_rotary}
    patched = FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    patched.__kwdefaults__ = forward.__kwdefaults__
    return patched


def _rms_norm_forward(norm: Any, x: Tensor) -> Tensor:
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction

    # Cast as Llama does: the mean of squares in float32, the weight in the dtype of x.
    out: Tensor = LigerRMSNormFunction.apply(x, norm.weight, norm.variance_epsilon, 0.0, "llama")
    return out


def _apply_rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    from liger_kernel.ops.rope import LigerRopeFunction

    out: tuple[Tensor, Tensor] = LigerRopeFunction.apply(query, key, cos, sin)
    return out


def _gated_mlp_forward(mlp: Any, x: Tensor) -> Tensor:
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    out: Tensor = mlp.down_proj(LigerSiLUMulFunction.apply(mlp.gate_proj(x), mlp.up_proj(x)))
    return out
