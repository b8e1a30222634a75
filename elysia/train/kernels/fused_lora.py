"""LoRA layers and gated MLPs that save less for the backward pass and pass over their tensors less often.

PEFT's layer makes four tensors of the output's size (two products, a scaling, a sum); here the adapter's
product is added in place to the base's result. A gated MLP saves its two halves and not the activated one.
The numbers are those of the plain path, which tests check.
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
    """Give the LoRA layers and gated MLPs of `model` the fused forward.

    A layer decides at every call, and uses PEFT's own forward with several adapters, one that is switched off
    or merged, DoRA, or weights that ZeRO-3 has scattered and gathers when their modules are called.
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
    # Only where nobody else holds the result; a compiler decides by itself what is done in place.
    in_place = (
        not torch.compiler.is_compiling() and type(base) is nn.Linear and not result._is_view()
    )
    dropped = layer.lora_dropout[name](x)
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    out: Tensor = _LoraAddition.apply(result, dropped, a, b, layer.scaling[name], in_place)
    return out


def _get_plain_adapter(layer: Any) -> str | None:
    """The adapter's name, if it is a single plain LoRA that is on, not merged, and whole."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1 or layer.disable_adapters or layer.merged or layer.lora_variant:
        return None
    a, b = layer.lora_A[names[0]], layer.lora_B[names[0]]
    if hasattr(a.weight, "ds_id") or b.bias is not None:
        return None
    return str(names[0])


class _LoraAddition(torch.autograd.Function):
    """result + scale * (x A^T) B^T; saves x, which layers with the same input share, and x A^T."""

    @staticmethod
    def forward(
        ctx: Any, result: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, in_place: bool
    ) -> Tensor:  # shapes: (…, out), (…, in), (r, in), (out, r)
        dtype = result.dtype
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        low = rows @ a.to(dtype).t()
        flat, b_t = result.view(-1, result.shape[-1]), b.to(dtype).t()
        ctx.save_for_backward(rows, low, a, b)
        ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, x.dtype
        if in_place:
            torch.addmm(flat, low, b_t, alpha=scale, out=flat)
            ctx.mark_dirty(result)
            return result
        return torch.addmm(flat, low, b_t, alpha=scale).view(result.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, a, b = ctx.saved_tensors
        out_grad = grads[0].reshape(-1, grads[0].shape[-1])
        low_grad = (out_grad @ b.to(out_grad.dtype)).mul_(ctx.scale)
        x_grad = None
        if ctx.needs_input_grad[1]:
            x_grad = (low_grad @ a.to(low_grad.dtype)).view(ctx.shape).to(ctx.dtype)
        a_grad = (low_grad.t() @ rows).to(a.dtype)
        b_grad = (out_grad.t() @ low).mul_(ctx.scale).to(b.dtype)
        return grads[0], x_grad, a_grad, b_grad, None, None


def _gated_mlp_forward(mlp: Any, x: Tensor) -> Tensor:
    out: Tensor = mlp.down_proj(_GatedActivation.apply(mlp.gate_proj(x), mlp.up_proj(x)))
    return out


class _GatedActivation(torch.autograd.Function):
    """silu(gate) * up; the activated half is computed again in backward."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        gate_grad: Tensor = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return gate_grad, F.silu(gate).mul_(grads[0])
