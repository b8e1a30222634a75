"""The learning rate: warm-up, then half a cosine, counted in optimizer steps. Knows only step numbers."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler


def factor(step: int, total: int, warmup_ratio: float) -> float:
    """What to multiply `lr` with at a 0-based `step` of `total`.

    There is always a warm-up step when `warmup_ratio` > 0, and neither the first nor the last step
    is spent at a rate near zero, however short the run.

    >>> [round(factor(t, 4, 0.03), 2) for t in range(4)]
    [0.5, 1.0, 0.75, 0.25]
    """
    warmup = max(1, round(total * warmup_ratio)) if warmup_ratio > 0 else 0
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):  # type: ignore[misc]
    """MMEngine scheduler over `factor`; `end` (the run's steps) is filled in by the strategy."""

    def __init__(self, optimizer: Any, end: int, warmup_ratio: float = 0.03, **kwargs: Any) -> None:
        self.total = end
        self.warmup_ratio = warmup_ratio
        super().__init__(optimizer, end=end, **kwargs)

    def _get_value(self) -> list[float]:
        scale = factor(self.last_step, self.total, self.warmup_ratio)
        return [base * scale for base in self.base_values]
