"""What a config's training will take, before it starts: memory by part, time, and what the data are.

Rows are tokenized as training does. Memory comes from formulas; where weights, data and device are
here, one micro-batch is measured as well, and its time and peak of memory count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from elysia.core.errors import ElysiaError
from elysia.models import loading
from elysia.models.hub import resolve_model
from elysia.train.config.settings import Settings
from elysia.train.distributed.sequence_parallel import data_parallel_rank
from elysia.train.planner.batch_shapes import (
    EpochShapes,
    MicroBatchShape,
    load_shapes,
    rank_typical,
)
from elysia.train.planner.cost_formulas import UNPLANNED, CostEstimate, CostModel
from elysia.train.planner.hardware import TargetDevice
from elysia.train.planner.measure import StepMeasurement, measure_micro_batch

PLAN_FILE = "plan.json"
TIMED_MICRO_BATCHES = 6


@dataclass(frozen=True)
class TrainingPlan:
    """Bytes, seconds, tokens; shares are from 0 to 1. `memory` is by part and sums to `peak`."""

    settings: str
    device: str
    dtype: str
    memory: dict[str, int]
    peak: int
    available: int
    tokens_per_s: float
    labelled_per_s: float
    step_seconds: float
    steps: int
    seconds: float
    spent: dict[str, float]
    data: dict[str, Any]
    advice: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return self.peak <= self.available

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "fits": self.fits}


def build_plan(settings: Settings, target: TargetDevice) -> TrainingPlan:
    """The plan; `advice` names the first setting to change when the memory does not suffice."""
    replicas = data_parallel_rank(settings.sequence_parallel_size, 0, target.world)[1]
    base = settings.pretrained_model_name_or_path
    folder = resolve_model(base, settings.hub, weights=False)
    loading.load_config(folder)  # complaints about the model come before those about the data
    epoch = load_shapes(settings, str(folder))
    epoch.notes.extend(
        f"{name} = True is not in these figures: they are those of {name} = False."
        for name in UNPLANNED
        if getattr(settings, name)
    )
    micros = epoch.micros[: settings.max_steps * settings.accumulative_counts * replicas or None]
    model = CostModel(settings, target, folder)
    estimate = model.estimate(micros)
    formula_peak = estimate.peak
    if (
        target.is_local
        and epoch.data
        and formula_peak <= target.memory
        and loading.has_weights(folder)
    ):
        try:
            estimate = adjust(estimate, _measure(model, micros), target.kind)
        except ElysiaError as error:
            epoch.notes.append(f"No micro-batch could be measured; the time is estimated: {error}")
    plan = _assemble(settings, target, epoch, estimate, replicas)
    if plan.fits:
        return plan

    def fits(changed: Settings) -> bool:
        # The same data, as far as a shorter max_length allows it.
        shortened = [micro.shorten(changed.max_length * changed.batch_size) for micro in micros]
        peak = CostModel(changed, target, folder).estimate(shortened).peak
        return peak + plan.peak - formula_peak <= target.memory

    return dataclasses.replace(plan, advice=suggest_change(settings, fits))


def _assemble(
    settings: Settings,
    target: TargetDevice,
    epoch: EpochShapes,
    estimate: CostEstimate,
    replicas: int,
) -> TrainingPlan:
    """The plan of an estimate; `replicas` processes see different data."""
    per_process = -(-len(epoch.micros) // replicas)
    count = min(settings.accumulative_counts, per_process)
    spent = {kind: seconds * count for kind, seconds in estimate.micro_batch_seconds.items()}
    spent["optimizer"] = estimate.optimizer_seconds
    step = sum(spent.values())
    steps_per_epoch = -(-per_process // settings.accumulative_counts)
    # How many rows there are is not known without a tokenizer.
    steps = settings.max_steps or (settings.max_epochs * steps_per_epoch if epoch.data else 0)
    micro_batches_per_s = per_process / steps_per_epoch * replicas / step
    return TrainingPlan(
        settings=settings.sha256(), device=target.rates.device, dtype=target.dtype,
        memory=estimate.memory, peak=estimate.peak, available=target.memory,
        tokens_per_s=float(np.mean([m.tokens for m in epoch.micros])) * micro_batches_per_s,
        labelled_per_s=float(np.mean([m.learned for m in epoch.micros])) * micro_batches_per_s,
        step_seconds=step, steps=steps, seconds=steps * step, spent=spent, data=epoch.data,
        notes=epoch.notes,
    )  # fmt: skip


def _measure(model: CostModel, micros: list[MicroBatchShape]) -> StepMeasurement:
    """Measure typical micro-batches, and the largest for the peak of memory."""
    largest = max(micros, key=lambda micro: (micro.tokens, micro.learned))
    typical = rank_typical(micros)[:TIMED_MICRO_BATCHES]
    measured = measure_micro_batch(
        model.settings,
        [list(micro.packs) for micro in typical],
        list(largest.packs),
        model.target.deepspeed,
        model.target.world,
    )
    # A whole run meets more lengths of rows than a few steps do.
    unmeasured = model.kernel_bytes(micros) - model.kernel_bytes([*typical, largest])
    return dataclasses.replace(measured, peak=measured.peak + unmeasured)


def adjust(estimate: CostEstimate, measured: StepMeasurement, kind: str) -> CostEstimate:
    """An estimate whose sums are those that were measured.

    Kinds of work keep their shares of the time. Memory that no formula knows is the allocator's (fragments,
    kernels, workspaces); where the parts sum to more than the peak, weights that nobody read are mapped
    from their file and take no memory.
    """
    scale = measured.micro_batch_seconds / sum(estimate.micro_batch_seconds.values())
    seconds = {kind: share * scale for kind, share in estimate.micro_batch_seconds.items()}
    memory, peak = {**estimate.memory, "allocator": 0}, measured.peak
    if kind == "cpu":
        memory["program"] = measured.program
    else:  # torch does not see what CUDA itself takes
        peak += memory["program"]
    rest = peak - sum(memory.values())
    memory["allocator"] = max(rest, 0)
    for part in ("weights", "activations", "program"):
        if rest < 0:
            less = min(memory[part], -rest)
            memory[part], rest = memory[part] - less, rest + less
    return CostEstimate(memory, seconds, measured.optimizer_seconds)


def suggest_change(settings: Settings, fits: Callable[[Settings], bool]) -> str:
    """A sentence that names the first change with which a training `fits`: each is tried alone, then
    all together."""
    together: dict[str, Any] = {}
    for change in _iter_changes(settings):
        if fits(settings.replace(**change)):
            return f"Set {_format_change(change)}: then it fits."
        together |= change
    if together and fits(settings.replace(**together)):
        return f"No setting alone suffices. Set {_format_change(together)}: together they do."
    return (
        "No setting makes it fit. Take a smaller model, more memory, or several devices under "
        "--deepspeed deepspeed_zero3."
    )


def _iter_changes(settings: Settings) -> Iterator[dict[str, Any]]:
    """Settings to change, the least harmful first."""
    if not settings.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if settings.batch_size > 1:
        counts = settings.accumulative_counts * settings.batch_size
        yield {"batch_size": 1, "accumulative_counts": counts}
    if settings.method == "full":
        yield {"method": "lora"}
    if settings.method != "qlora":
        yield {"method": "qlora"}
    if settings.max_length > 512:
        yield {"max_length": settings.max_length // 2}


def _format_change(change: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in change.items())
