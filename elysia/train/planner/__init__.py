"""What a training will take, before it starts: memory by part, time, and what the data are like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elysia.core.lazy_imports import build_getattr

if TYPE_CHECKING:
    from elysia.train.planner.hardware import DeviceRates, TargetDevice, resolve_target
    from elysia.train.planner.training_plan import PLAN_FILE, TrainingPlan, build_plan

__all__ = [
    "PLAN_FILE", "DeviceRates", "TargetDevice", "TrainingPlan", "build_plan", "resolve_target",
]  # fmt: skip

# Imported on first use: the throughput hook needs `hardware` alone; a plan imports all of training.
_MODULES = {
    "PLAN_FILE": "training_plan",
    "DeviceRates": "hardware",
    "TargetDevice": "hardware",
    "TrainingPlan": "training_plan",
    "build_plan": "training_plan",
    "resolve_target": "hardware",
}
__getattr__ = build_getattr(__name__, _MODULES)
