"""Adapters and gates that keep less for the backward pass and go over their tensors less often.

PEFT's layer makes four tensors of the output's size (two products, a scaling, a sum); here the adapter's
product is added where the base's result lies. A gated MLP keeps its two halves and not the
activated one. The numbers are those of the plain path, and tests hold them to it. Knows nothing of losses.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

GATED_MLPS = (LlamaMLP, Qwen2MLP)  # InternLM2 here is a Llama


def patch_lora_and_mlp(model: nn.Module) -> None:
    """Let the LoRA layers and gated MLPs of `model` take the short way, where it is the same.

    A layer asks at every call, and goes PEFT's way with several adapters, one that is switched off or
    merged, DoRA, or weights that ZeRO-3 has scattered and gathers when their modules are called.
    """
    for module in model.modules():
        layer: Any = module
        if isinstance(module, LoraLayer) and type(module).__name__ in ("Linear", "Linear4bit"):
            layer.forward = MethodType(_lora_forward, module)
        elif type(module) in GATED_MLPS and layer.config.hidden_act in ("silu", "swish"):
            layer.forward = MethodType(_gated_mlp_forward, module)


def _lora_forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    name = _get_plain_adapter(layer)
    if name is None or args or kwargs or not torch.is_grad_enabled():
        plain: Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return plain
    base = layer.base_layer
    result = base(x)
    # Whether nobody else looks at it; a compiler places its tensors itself.
    own = not torch.compiler.is_compiling() and type(base) is nn.Linear and not result._is_view()
    dropped = layer.lora_dropout[name](x)
    first, second = layer.lora_A[name].weight, layer.lora_B[name].weight
    out: Tensor = _LoraAddition.apply(result, dropped, first, second, layer.scaling[name], own)
    return out


def _get_plain_adapter(layer: Any) -> str | None:
    """The adapter's name, if it is one plain LoRA, on, apart from the base, and whole."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1 or layer.disable_adapters or layer.merged or layer.lora_variant:
        return None
    first, second = layer.lora_A[names[0]], layer.lora_B[names[0]]
    if hasattr(first.weight, "ds_id") or second.bias is not None:
        return None
    return str(names[0])


class _LoraAddition(torch.autograd.Function):
    """result + scale * (x A^T) B^T; keeps x, which the layers that share it keep once, and x A^T."""

    @staticmethod
    def forward(
        ctx: Any, result: Tensor, x: Tensor, first: Tensor, second: Tensor, scale: float, own: bool
    ) -> Tensor:  # shapes: (…, out), (…, in), (r, in), (out, r)
        kind = result.dtype
        rows = x.reshape(-1, x.shape[-1]).to(kind)
        low = rows @ first.to(kind).t()
        flat, back = result.view(-1, result.shape[-1]), second.to(kind).t()
        ctx.save_for_backward(rows, low, first, second)
        ctx.scale, ctx.shape, ctx.kind = scale, x.shape, x.dtype
        if own:
            torch.addmm(flat, low, back, alpha=scale, out=flat)
            ctx.mark_dirty(result)
            return result
        return torch.addmm(flat, low, back, alpha=scale).view(result.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, first, second = ctx.saved_tensors
        slope = grads[0].reshape(-1, grads[0].shape[-1])
        inner = (slope @ second.to(slope.dtype)).mul_(ctx.scale)
        x_grad = None
        if ctx.needs_input_grad[1]:
            x_grad = (inner @ first.to(inner.dtype)).view(ctx.shape).to(ctx.kind)
        first_grad = (inner.t() @ rows).to(first.dtype)
        second_grad = (slope.t() @ low).mul_(ctx.scale).to(second.dtype)
        return grads[0], x_grad, first_grad, second_grad, None, None


def _gated_mlp_forward(mlp: Any, x: Tensor) -> Tensor:
    out: Tensor = mlp.down_proj(_GatedActivation.apply(mlp.gate_proj(x), mlp.up_proj(x)))
    return out


class _GatedActivation(torch.autograd.Function):
    """silu(gate) * up, of which the activated half is made again in backward."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        gate_grad: Tensor = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return gate_grad, F.silu(gate).mul_(grads[0])
