"""Liger's Triton kernels (https://arxiv.org/abs/2410.10989) for RMSNorm, rotary embedding and SwiGLU.

They go into the modules of one model; transformers' classes stay as they are. The loss is not Liger's: ours
makes no full logits either, and scores labelled positions alone. Knows nothing of losses.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2RMSNorm

from elysia.core.errors import ModelError
from elysia.train.kernels.fused_lora import GATED_MLPS

MODEL_TYPES = ("internlm2", "llama", "qwen2")  # InternLM2 here is a Llama
PACKAGE = "liger-kernel==0.8.5"
NORMS = (LlamaRMSNorm, Qwen2RMSNorm)
ATTENTION = (LlamaAttention, Qwen2Attention)
ROTATE = "apply_rotary_pos_emb"  # what transformers' attention calls it


def missing_requirement(device: str) -> str:
    """What the kernels need and is not here, as words; '' for nothing."""
    if device != "cuda":
        return "Liger's kernels are Triton's, and need a GPU"
    if not find_spec("triton"):
        return "the package triton is not installed"
    if not find_spec("liger_kernel"):
        return f"the package liger-kernel is not installed (pip install --no-deps {PACKAGE})"
    return ""


def patch_model(model: nn.Module) -> dict[str, int]:
    """Put the kernels into `model`; returns how many norms, attentions and gated MLPs have them.

    Call it after `fused.fuse`, whose gates it replaces. ModelError when transformers' attention is not
    written as it was.
    """
    rotated: dict[Any, FunctionType] = {kind: _with_liger_rotation(kind) for kind in ATTENTION}
    counts = {"norms": 0, "attentions": 0, "gates": 0}
    for module in model.modules():
        layer: Any = module
        if type(module) in NORMS:
            layer.forward, what = MethodType(_rms_norm_forward, module), "norms"
        elif type(module) in rotated:
            layer.forward, what = MethodType(rotated[type(module)], module), "attentions"
        elif type(module) in GATED_MLPS and layer.config.hidden_act in ("silu", "swish"):
            layer.forward, what = MethodType(_gated_mlp_forward, module), "gates"
        else:
            continue
        counts[what] += 1
    return counts


def _with_liger_rotation(kind: Any) -> FunctionType:
    """The class's own forward, in which the name of the rotation means Liger's."""
    own = kind.forward
    if ROTATE not in own.__code__.co_names:
        raise ModelError(
            f"liger_kernel = True cannot be used: {kind.__name__} of this transformers does not call "
            f"{ROTATE}. Set it to False."
        )
    names = {**own.__globals__, ROTATE: _apply_rotary}
    made = FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    made.__kwdefaults__ = own.__kwdefaults__
    return made


def _rms_norm_forward(norm: Any, x: Tensor) -> Tensor:
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction

    # As Llama casts: the square's mean in float32, the weight in x's dtype.
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
