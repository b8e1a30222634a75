"""What a checkpoint's adapter is on, read from the names and shapes of its weights, and how PEFT's config
says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from elysia.core.errors import CheckpointError
from elysia.export.lora_deltas import DORA_MAGNITUDE, SCORE_KEY, WRAPPED
from elysia.models.adapters import EXPERT_PARAMETERS, EXPERTS, is_rewritten_target
from elysia.train.config.settings import Settings


@dataclass
class AdapterTargets:
    """`modules` are linear layers by their last name, `parameters` tensors by the end of their name."""

    modules: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    has_experts: bool = False

    def add(self, module: str, model_type: str) -> None:
        """Count a linear layer that carries LoRA."""
        parent, _, name = module.rpartition(".")
        if is_rewritten_target(name, model_type):
            self.parameters.add(f"{parent.rpartition('.')[2]}.{name}.weight")
        else:
            self.modules.add(name)

    def add_experts(self, layer: str) -> None:
        """Count a layer of experts that carries LoRA."""
        self.has_experts = True
        leaf = layer.rpartition(".")[2]
        self.parameters |= {f"{leaf}.{part}" for part in EXPERT_PARAMETERS}

    def get_names(self) -> set[str]:
        """Every target as a config names it."""
        plain = {name.split(".")[-2] for name in self.parameters if name.endswith(".weight")}
        return self.modules | plain | ({EXPERTS} if self.has_experts else set())


def read_targets(
    settings: Settings, named: Mapping[str, Tensor], pth: Path, model_type: str
) -> AdapterTargets:
    """The targets of an adapter whose weights are `named`; CheckpointError when the config's differ."""
    targets = AdapterTargets()
    _check_dora(settings, named, pth)
    if (SCORE_KEY in named) != (settings.objective == "reward"):
        code = "export.reward_head" if SCORE_KEY in named else "export.no_reward_head_trained"
        raise CheckpointError(code, path=pth, objective=settings.objective)
    modules = {name.partition(".lora_")[0] for name in named}
    for name, tensor in named.items():
        if name.endswith(DORA_MAGNITUDE) or name == SCORE_KEY:
            continue
        module, _, part = name.partition(".lora_")
        layer = module.removesuffix(WRAPPED)
        is_experts = module != layer or f"{module}{WRAPPED}" in modules
        if is_experts:
            targets.add_experts(layer)
        else:
            targets.add(module, model_type)
        _check_pair(settings, named, name, part, tensor, is_experts, pth)
    expected = settings.lora_target_modules
    if not isinstance(expected, str):
        allowed = {name.rpartition(".")[2] for name in expected}
        if not targets.get_names() <= allowed:
            names = sorted(targets.get_names())
            raise CheckpointError(
                "export.other_targets", path=pth, targets=names, expected=sorted(expected)
            )
    return targets


def _check_pair(
    settings: Settings,
    named: Mapping[str, Tensor],
    name: str,
    part: str,
    tensor: Tensor,
    is_experts: bool,
    pth: Path,
) -> None:
    """CheckpointError unless `tensor` is half of a pair of the config's rank; experts have that many
    rows each."""
    side = part.split(".")[0].split("_")[-1]
    if side not in ("A", "B"):
        raise CheckpointError("export.no_lora_weight", path=pth, name=name)
    rank = tensor.shape[0 if side == "A" else 1]
    if rank % settings.lora_r if is_experts else rank != settings.lora_r:
        code = "export.other_expert_rank" if is_experts else "export.other_rank"
        raise CheckpointError(code, path=pth, name=name, rank=rank, expected=settings.lora_r)
    tag = "lora_embedding_" if part.startswith("embedding") else "lora_"
    other = {"A": "B", "B": "A"}[side]
    if name.replace(f".{tag}{side}", f".{tag}{other}") not in named:
        raise CheckpointError("export.half_missing", path=pth, name=name)


def _check_dora(settings: Settings, named: Mapping[str, Tensor], pth: Path) -> None:
    has_dora = any(name.endswith(DORA_MAGNITUDE) for name in named)
    if has_dora != settings.use_dora:
        code = "export.dora_trained" if has_dora else "export.lora_trained"
        raise CheckpointError(code, path=pth, use_dora=settings.use_dora)
    if not has_dora:
        return
    for name in named:
        magnitude = name.replace("lora_A.weight", DORA_MAGNITUDE)
        if name.endswith(".lora_A.weight") and magnitude not in named:
            raise CheckpointError("export.magnitude_missing", path=pth, name=name)
