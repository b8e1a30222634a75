"""Logs at the end of a run how far off its plan was, where `elysia plan` has left one in the work dir."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from mmengine.hooks import Hook

WARM = 3  # first steps, in which kernels are compiled, are left out where there are twice as many


class PlanReportHook(Hook):  # type: ignore[misc]
    """Args: `settings`, the hash of the run's settings; a plan of other settings is not compared."""

    priority = "NORMAL"

    def __init__(self, settings: str) -> None:
        self.settings = settings
        self.plan: dict[str, Any] | None = None
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def before_train(self, runner: Any) -> None:
        self.plan = _read_plan(Path(runner.work_dir) / "plan.json")
        if self.plan is not None and self.plan.get("settings") != self.settings:
            runner.logger.info("plan.json is of other settings: plan again to compare.")
            self.plan = None

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.wall.append(time.perf_counter() - self.begun[0])
        self.cpu.append(time.process_time() - self.begun[1])
        last = runner.iter + 1 == runner.max_iters or runner.train_loop.stop_training
        if self.plan is None or not last or runner.rank:
            return
        comparison = compare_plan(self.plan, _steady_mean(self.wall), _steady_mean(self.cpu))
        runner.message_hub.update_info("plan", comparison)
        runner.logger.info(
            "The plan said %.3g s a step and %.0f MB; it took %.3g s (%+.0f %%; %.3g s of processor "
            "time) and %.0f MB (%+.0f %%).",
            comparison["planned_step_seconds"], comparison["planned_peak_mb"], comparison["step_seconds"],
            100 * (comparison["step_seconds"] / comparison["planned_step_seconds"] - 1),
            comparison["step_cpu_seconds"], comparison["peak_mb"],
            100 * (comparison["peak_mb"] / comparison["planned_peak_mb"] - 1),
        )  # fmt: skip


def compare_plan(plan: dict[str, Any], wall: float, cpu: float) -> dict[str, float]:
    """Planned and measured seconds of a step and MB at the peak, for the run card."""
    planned = plan["peak"]
    if torch.cuda.is_available():  # torch does not see what CUDA itself takes
        planned -= plan["memory"]["program"]
    return {
        "planned_step_seconds": float(plan["step_seconds"]),
        "step_seconds": wall,
        "step_cpu_seconds": cpu,
        "planned_peak_mb": planned / 2**20,
        "peak_mb": get_peak_memory() / 2**20,
    }


def get_peak_memory() -> float:
    """The peak of memory so far in bytes: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_reserved())
    try:
        import resource
    except ImportError:  # Windows
        return float(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _steady_mean(seconds: list[float]) -> float:
    steady = seconds[WARM:] if len(seconds) >= 2 * WARM else seconds
    return sum(steady) / len(steady)


def _read_plan(path: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return plan if plan["peak"] > 0 and plan["step_seconds"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
