"""The learning rate: warm-up, then half a cosine, counted in optimizer steps. Knows only step numbers."""

from __future__ import annotations

import math
from importlib import import_module
from inspect import signature
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from elysia.core.errors import ConfigError
from elysia.train.config.settings import Settings


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
    done = (step - warmup) / max(1, total - warmup)
    falling = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
    return floor + (1 - floor) * falling[shape]


class WarmupDecayLR(LRSchedulerMixin, _ParamScheduler):  # type: ignore[misc]
    """MMEngine scheduler over `lr_factor`; `end` (the run's steps) is filled in by the strategy."""

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


def build_optimizer_config(settings: Settings, deepspeed: bool) -> dict[str, Any]:
    """Its class, `lr`, and those of betas, weight_decay and fused that it takes; ConfigError when
    there is no such class."""
    module, _, name = settings.optimizer.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        takes = signature(kind).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"optimizer = '{settings.optimizer}' cannot be used ({error}). Name a class such as "
            "'torch.optim.AdamW' or 'bitsandbytes.optim.PagedAdamW32bit'."
        ) from error
    wanted: dict[str, Any] = {
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
        "fused": not deepspeed,  # DeepSpeed replaces the tensors under the optimizer
    }
    known = {key: value for key, value in wanted.items() if key in takes}
    return {"type": settings.optimizer, "lr": settings.lr, **known}
