"""Adapters: LoRA (https://arxiv.org/abs/2106.09685) and DoRA (https://arxiv.org/abs/2402.09353) on a
loaded model, by PEFT, over a frozen base in its own dtype or in NF4.

An adapter's weights carry the names that modules have in memory: for InternLM2 q_proj, k_proj,
v_proj, o_proj, gate_proj, up_proj, down_proj, not the fused `wqkv` of its files. The experts of a
mixture are two parameters there, (experts, out, in) each, and every expert gets factors of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.utils import transformers_weight_conversion
from torch import Tensor, nn

from elysia.core.errors import ModelError
from elysia.models.architectures import internlm2
from elysia.models.quantization import keep_nf4_trainable

__all__ = ["ALL_LINEAR", "add_lora", "keep_nf4_trainable", "trainable_state_dict"]

log = logging.getLogger(__name__)

ALL_LINEAR = "all-linear"  # every linear layer but the head, as XTuner does
EXPERTS = "experts"  # among targets: the experts of a mixture
# The parameters of an expert layer, in the order in which PEFT wraps them, the second outermost.
EXPERT_PARAMETERS = ("gate_up_proj", "down_proj")
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
    experts: bool = True,
) -> Any:
    """`model` frozen, with a new adapter whose weights train in float32.

    Args:
        r: rank; the adapter's product is scaled by alpha / r.
        dropout: share of the adapter's inputs that are zeroed in training, 0 to 1.
        targets: the linear layers by the last part of their name, "experts" for the experts of a
            mixture; "all-linear" is all but the head.
        experts: whether "all-linear" includes the experts, each with factors of rank `r` and
            without dropout. Routers never get an adapter.
        dora: train the length of each row of a weight separately from its direction.
        rslora: scale the product by alpha / sqrt(r) instead (https://arxiv.org/abs/2312.03732).
        scores: a reward model; its whole `score` head trains beside the adapter.

    A new adapter changes nothing, since its second factor starts at zero. Raises ModelError for
    impossible numbers and for targets that the model does not have.
    """
    if r < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise ModelError("models.lora_numbers", r=r, alpha=alpha, dropout=dropout)
    modules, parameters = _resolve_targets(model, targets, experts)
    if parameters and dora:
        raise ModelError("models.dora_on_experts")
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT divides by it, whole or not
        lora_dropout=0.0 if parameters else dropout,
        target_modules=modules,
        target_parameters=parameters or None,
        bias="none",
        task_type="SEQ_CLS" if scores else "CAUSAL_LM",
        modules_to_save=["score"] if scores else None,
        use_dora=dora,
        use_rslora=rslora,
    )
    adapted = _inject(model, config)
    if parameters:
        _set_dropout(adapted, dropout)
        _log_experts(adapted)
    return adapted


def _inject(model: Any, config: LoraConfig) -> Any:
    """The frozen model with a new adapter in float32."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with _targets_as_given():
        # Casts adapter weights to float32: steps of 1e-4 vanish in bfloat16's eight bits.
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # PEFT casts adapters only, not a head that trains with them
            parameter.data = parameter.data.float()
    return adapted


@contextmanager
def _targets_as_given() -> Iterator[None]:
    """PEFT rewrites the targets of adapters that were made for transformers 4, where experts were linear
    layers. It cannot tell them from new ones, whose shared experts and dense layers it would lose."""
    original = transformers_weight_conversion.convert_peft_config_for_transformers
    transformers_weight_conversion.convert_peft_config_for_transformers = _change_nothing
    try:
        yield
    finally:
        transformers_weight_conversion.convert_peft_config_for_transformers = original


def _change_nothing(*args: Any, **kwargs: Any) -> None:
    pass


def is_rewritten_target(name: str, model_type: str) -> bool:
    """Whether PEFT takes a target of this name for an expert of transformers 4, in a model of this type.

    An adapter's config then names the layer's weight among its parameters, which PEFT leaves as they are.
    """
    tables: Any = transformers_weight_conversion
    family = tables._MODEL_TO_CONVERSION_PATTERN.get(model_type, "")
    return name in tables._MOE_TARGET_MODULE_MAPPING.get(family, {})


def load_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter of a folder, as `add_lora` had it: linear layers stay linear layers, also in
    4 bits. Raises what PEFT raises."""
    config: Any = PeftConfig.from_pretrained(str(folder))
    weights = {name for name in config.target_parameters or [] if name.endswith(".weight")}
    if weights and isinstance(config.target_modules, list | set):
        config.target_parameters = sorted(set(config.target_parameters) - weights) or None
        config.target_modules = sorted(
            {*config.target_modules, *(name.removesuffix(".weight") for name in weights)}
        )
        with _targets_as_given():
            return PeftModel.from_pretrained(model, str(folder), config=config)
    return PeftModel.from_pretrained(model, str(folder))


def _set_dropout(adapted: Any, dropout: float) -> None:
    """Dropout for the linear layers; PEFT accepts none in a config that targets experts, too."""
    if not dropout:
        return
    for module in adapted.modules():
        if isinstance(module, LoraLayer) and not isinstance(module, ParamWrapper):
            for name in module.lora_dropout:
                module.lora_dropout[name] = nn.Dropout(dropout)


def _log_experts(adapted: Any) -> None:
    trained = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    own = sum(count for name, count in trained.items() if f".{EXPERTS}." in name)
    log.info(
        "%.1f million of the adapter's %.1f million weights are on experts; lora_experts = False leaves "
        "the experts as they are.",
        own / 1e6,
        sum(trained.values()) / 1e6,
    )


def find_expert_layers(model: Any) -> list[str]:
    """The names of the layers that hold a mixture's experts as parameters of three dimensions."""

    def is_expert_layer(module: nn.Module) -> bool:
        weights = [module._parameters.get(part) for part in EXPERT_PARAMETERS]
        return all(weight is not None and weight.ndim == 3 for weight in weights)

    return [name for name, module in model.named_modules() if is_expert_layer(module)]


def _resolve_targets(
    model: Any, targets: str | Sequence[str] | None, experts: bool
) -> tuple[str | list[str], list[str]]:
    """(linear layers, parameters of experts) that get an adapter, by the last parts of their names."""
    names = [targets] if isinstance(targets, str) else list(targets or [ALL_LINEAR])
    layers = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    present = sorted({layer.rsplit(".", 1)[-1] for layer in layers})
    expert_layers = find_expert_layers(model)
    leaves = sorted({name.rsplit(".", 1)[-1] for name in expert_layers})
    parameters = [f"{leaf}.{part}" for leaf in leaves for part in EXPERT_PARAMETERS]
    if ALL_LINEAR in names:
        if not expert_layers:
            return ALL_LINEAR, []
        heads = {"lm_head", "score"}
        return [name for name in present if name not in heads], parameters if experts else []
    if model.config.model_type == internlm2.MODEL_TYPE:
        names = [new for name in names for new in INTERNLM2_TARGETS.get(name, (name,))]
    wants_experts = EXPERTS in names and bool(expert_layers)
    names = [name for name in names if not (wants_experts and name == EXPERTS)]
    missing = [n for n in names if not any(f".{layer}".endswith(f".{n}") for layer in layers)]
    if missing:
        present += [EXPERTS] if expert_layers else []
        raise ModelError(
            "models.lora_targets", missing=missing, present=present, all_linear=ALL_LINEAR
        )
    return list(dict.fromkeys(names)), parameters if wants_experts else []


def trainable_state_dict(model: Any) -> dict[str, Tensor]:
    """The weights that train, by name, copied to the CPU."""
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
