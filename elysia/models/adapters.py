"""Adapters: LoRA (https://arxiv.org/abs/2106.09685) and DoRA (https://arxiv.org/abs/2402.09353) on a
loaded model, by PEFT, over a frozen base in its own dtype or in NF4.

An adapter's weights carry the names that modules have in memory: for InternLM2 q_proj, k_proj,
v_proj, o_proj, gate_proj, up_proj, down_proj, not the fused `wqkv` of its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from elysia.core.errors import ModelError
from elysia.models.architectures import internlm2
from elysia.models.quantization import keep_nf4_trainable

__all__ = ["ALL_LINEAR", "add_lora", "keep_nf4_trainable", "trainable_state_dict"]

ALL_LINEAR = "all-linear"  # every linear layer but the head, as XTuner does
# Names from InternLM2's own code, which configs written for it use.
INTERNLM2_TARGETS = {
    "wqkv": ("q_proj", "k_proj", "v_proj"),
    "wo": ("o_proj",),
    "w1": ("gate_proj",),
    "w3": ("up_proj",),
    "w2": ("down_proj",),
    "output": ("lm_head",),
}


def add_lora(
    model: Any,
    *,
    r: int,
    alpha: float,
    dropout: float = 0.0,
    targets: str | Sequence[str] | None = ALL_LINEAR,
    dora: bool = False,
    rslora: bool = False,
    scores: bool = False,
) -> Any:
    """`model` frozen, with a new adapter whose weights train in float32.

    Args:
        r: rank; the adapter's product is scaled by alpha / r.
        dropout: share of the adapter's inputs that are zeroed in training, 0 to 1.
        targets: the linear layers by the last part of their name; "all-linear" is all but the head.
        dora: train the length of each row of a weight separately from its direction.
        rslora: scale the product by alpha / sqrt(r) instead (https://arxiv.org/abs/2312.03732).
        scores: a reward model; its whole `score` head trains beside the adapter.

    A new adapter changes nothing, since its second factor starts at zero. Raises ModelError for
    impossible numbers and for targets that the model does not have.
    """
    if r < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise ModelError("models.lora_numbers", r=r, alpha=alpha, dropout=dropout)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT divides by it, whole or not
        lora_dropout=dropout,
        target_modules=_resolve_targets(model, targets),
        bias="none",
        task_type="SEQ_CLS" if scores else "CAUSAL_LM",
        modules_to_save=["score"] if scores else None,
        use_dora=dora,
        use_rslora=rslora,
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    # Casts adapter weights to float32: steps of 1e-4 vanish in bfloat16's eight bits.
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # PEFT casts adapters only, not a head that trains with them
            parameter.data = parameter.data.float()
    return adapted


def _resolve_targets(model: Any, targets: str | Sequence[str] | None) -> str | list[str]:
    names = [targets] if isinstance(targets, str) else list(targets or [ALL_LINEAR])
    if ALL_LINEAR in names:
        return ALL_LINEAR
    if model.config.model_type == internlm2.MODEL_TYPE:
        names = [new for name in names for new in INTERNLM2_TARGETS.get(name, (name,))]
    layers = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = [n for n in names if not any(f".{layer}".endswith(f".{n}") for layer in layers)]
    if missing:
        present = sorted({layer.rsplit(".", 1)[-1] for layer in layers})
        raise ModelError(
            "models.lora_targets", missing=missing, present=present, all_linear=ALL_LINEAR
        )
    return list(dict.fromkeys(names))


def trainable_state_dict(model: Any) -> dict[str, Tensor]:
    """The weights that train, by name, copied to the CPU."""
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
