"""Optimizer and learning rate: the optimizer that a setting names, LoRA+'s parameter groups, and the
schedule.
"""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from torch import nn


def lr_factor(
    step: int,
    total: int,
    warmup_ratio: float,
    warmup_steps: int = 0,
    shape: str = "cosine",
    floor: float = 0.0,
) -> float:
    """What to multiply `lr` with at a 0-based `step` of `total`.

    After the warm-up (`warmup_steps`, else a share of the run) the rate falls to `floor` of `lr`
    along half a cosine or a line, or stays ("constant").
    There is always a warm-up step when `warmup_ratio` > 0, and neither the first nor the last step
    is spent at a rate near zero, however short the run.

    >>> [round(lr_factor(t, 4, 0.03), 2) for t in range(4)]
    [0.5, 1.0, 0.75, 0.25]
    """
    warmup = warmup_steps or (max(1, round(total * warmup_ratio)) if warmup_ratio > 0 else 0)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    decay = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "constant": 1.0,
    }
    return floor + (1 - floor) * decay[shape]


class WarmupDecayLR(LRSchedulerMixin, _ParamScheduler):  # type: ignore[misc]
    """MMEngine scheduler over `lr_factor`; `end`, the run's steps, is filled in by the strategy.

    A checkpoint stores its attributes under these names.
    """

    def __init__(
        self,
        optimizer: Any,
        end: int,
        warmup_ratio: float = 0.03,
        warmup_steps: int = 0,
        shape: str = "cosine",
        min_lr: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.total = end
        self.warmup_ratio, self.warmup_steps = warmup_ratio, warmup_steps
        self.shape, self.min_lr = shape, min_lr
        super().__init__(optimizer, end=end, **kwargs)

    def _get_value(self) -> list[float]:
        return [base * self._factor(self.min_lr / base) for base in self.base_values]

    def _factor(self, floor: float) -> float:
        return lr_factor(
            self.last_step, self.total, self.warmup_ratio, self.warmup_steps, self.shape, floor
        )


def build_parameter_groups(model: nn.Module, lr: float, ratio: float) -> list[Any]:
    """What an optimizer takes as `params`: everything that trains, LoRA's B at `ratio` times `lr`.

    LoRA+ (https://arxiv.org/abs/2402.12354). A's factors, DoRA's magnitudes and heads keep `lr`.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if ratio == 1:
        return [p for _, p in trainable]
    lora_b = [p for name, p in trainable if ".lora_B." in name]
    others = [p for name, p in trainable if ".lora_B." not in name]
    return [{"params": others, "lr": lr}, {"params": lora_b, "lr": lr * ratio}]
