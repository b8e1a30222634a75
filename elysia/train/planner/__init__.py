"""What a training will take, before it starts: memory by part, time, and what the data are like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elysia.train.planner.hardware import DeviceRates, TargetDevice, resolve_target
    from elysia.train.planner.training_plan import PLAN_FILE, TrainingPlan, build_plan

__all__ = [
    "PLAN_FILE", "DeviceRates", "TargetDevice", "TrainingPlan", "build_plan", "resolve_target",
]  # fmt: skip
_HARDWARE = ("DeviceRates", "TargetDevice", "resolve_target")


def __getattr__(name: str) -> Any:
    # Late: the throughput hook needs hardware.py alone, while a plan imports the whole of training.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from elysia.train.planner import hardware, training_plan

    return getattr(hardware if name in _HARDWARE else training_plan, name)
