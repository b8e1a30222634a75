"""What a config's training will take, before it starts: memory by part, speed, and what the data are.

Rows are tokenized as training does; the model is an outline (no weights are read), traced on a micro-batch
of the data's own lengths. Knows nothing of the command line.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from elysia.core.errors import ConfigError, nearest
from elysia.models import loading
from elysia.train.config.builder import build_model_config
from elysia.train.config.settings import Settings
from elysia.train.distributed.deepspeed_strategy import load_deepspeed_config
from elysia.train.distributed.sequence_parallel import data_parallel_rank
from elysia.train.kernels.chunked_loss import chunk_rows
from elysia.train.planner.batch_shapes import (
    EpochShapes,
    MicroBatchShape,
    load_shapes,
    pick_typical,
)
from elysia.train.planner.hardware import GPUS, DeviceRates, get_device_rates, lookup_gpu
from elysia.train.planner.heap import free_here, grown
from elysia.train.planner.meta_model import MetaModel
from elysia.train.planner.op_tracer import OpTracer, trace_micro_batch
from elysia.train.planner.suggest import suggest_change

PLAN_FILE = "plan.json"
MB = 2**20
# On a CPU, small blocks that live long keep what lies around them from being used again. Measured over
# the cases of docs/plan.md: so many bytes for each operation of a micro-batch.
PINNED = 30 * 1024
KERNELS = (
    35 * MB
)  # code that oneDNN makes, and its workspaces, after the first steps (measured, too)
UNPLANNED = ("torch_compile", "liger_kernel")  # what they save was not measured
# In 16 bits it makes code for every kind of product, of which a new length has its own; it keeps so many.
KERNEL, KEPT = int(0.55 * MB), 1024
CONTEXT = 600 * MB  # of CUDA: its context and libraries; differs by card, not measured here


@dataclass(frozen=True)
class TargetDevice:
    """The device that is planned for: its rates, its memory in bytes, the processes that share."""

    kind: str
    rates: DeviceRates
    memory: int
    dtype: str
    world: int = 1
    deepspeed: str = ""


@dataclass(frozen=True)
class ProcessBaseline:
    """What is there before the model: bytes of the program itself, the free ones of its heap (`holes`,
    and at its `top`), and the ids that the data hold (None: unknown)."""

    program: int
    holes: list[int] = field(default_factory=list)
    top: int = 0
    words: NDArray[np.int64] | None = None


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
    places = data_parallel_rank(settings.sequence_parallel_size, 0, target.world)[1]
    folder = loading.resolve_model(settings.pretrained_model_name_or_path, settings.hub)
    loading.load_config(folder)  # complaints about the model come before those about the data
    rows = load_shapes(settings, str(folder))
    micros, data = rows.micros, rows.data
    rows.notes.extend(
        f"{name} = True is not in these figures: they are those of {name} = False."
        for name in UNPLANNED
        if getattr(settings, name)
    )
    start = _start(settings, target, rows)
    run = micros[: settings.max_steps * settings.accumulative_counts * places or None]
    parts = _at_once(settings, target, run)
    memory, trace = _cost(settings, str(folder), target, parts, start, len(parts) > len(run))
    peak = sum(memory.values())
    tokens = float(np.mean([m.tokens for m in micros]))
    learned = float(np.mean([m.learned for m in micros]))
    times = len(parts) / len(run)
    each = -(-len(micros) // places)  # of those that see different data
    step, spent = _step_seconds(settings, target, trace, memory, each, times)
    an_epoch = -(-each // settings.accumulative_counts)
    # How many rows there are is not known without a tokenizer.
    steps = settings.max_steps or (settings.max_epochs * an_epoch if data else 0)
    found = TrainingPlan(
        settings=settings.sha256(), device=target.rates.device, dtype=target.dtype, memory=memory,
        peak=peak, available=target.memory,
        tokens_per_s=tokens * each / an_epoch * places / step,
        labelled_per_s=learned * each / an_epoch * places / step,
        step_seconds=step, steps=steps, seconds=steps * step, spent=spent, data=data, notes=rows.notes,
    )  # fmt: skip
    if found.fits:
        return found

    def fits(changed: Settings) -> bool:
        return _suffices(changed, str(folder), target, run, start)

    return dataclasses.replace(found, advice=suggest_change(settings, fits))


def resolve_target(
    settings: Settings, gpu: str = "", memory: int = 0, deepspeed: str = ""
) -> TargetDevice:
    """The device that is here, or the GPU of that name; `memory` in bytes overrides its own."""
    processes = [os.environ.get(name, "1") for name in ("NPROC_PER_NODE", "NNODES")]
    world = int(np.prod([int(text) if text.isdigit() else 1 for text in processes]))
    dtype: str = settings.dtype
    if gpu:
        dtype = "bfloat16" if dtype == "auto" else dtype
        rates = lookup_gpu(gpu, getattr(torch, dtype))
        if rates is None:
            names = [row[0] for row in GPUS]
            raise ConfigError(
                f"--gpu {gpu} is not in the table of known GPUs.{nearest(gpu, names)} It has "
                f"{', '.join(names)}."
            )
        if not memory:
            raise ConfigError(f"--gpu {gpu} needs its memory, too: --memory 24GB.")
        return TargetDevice("cuda", rates, memory, dtype, world, deepspeed)
    device = loading.pick_device()
    dtype = str(loading.pick_dtype(device)).removeprefix("torch.") if dtype == "auto" else dtype
    own = psutil.virtual_memory().total
    if device.type == "cuda":
        own = torch.cuda.get_device_properties(device).total_memory
    rates = get_device_rates(device, getattr(torch, dtype))
    return TargetDevice(device.type, rates, memory or own, dtype, world, deepspeed)


def _start(settings: Settings, target: TargetDevice, rows: EpochShapes) -> ProcessBaseline:
    """Of this process, which has imported what training does, and holds its rows and tokenizer."""
    if target.kind == "cuda":
        return ProcessBaseline(CONTEXT)
    import tensorboard  # noqa: F401

    import elysia.train.engine.runner  # noqa: F401

    if settings.method == "qlora":
        import bitsandbytes  # noqa: F401
    holes, top = free_here()
    taken = int(psutil.Process().memory_info().rss) - sum(holes) - top
    return ProcessBaseline(taken + KERNELS, holes, top, rows.words)


def _at_once(
    settings: Settings, target: TargetDevice, micros: list[MicroBatchShape]
) -> list[MicroBatchShape]:
    """What goes through the network at once: one process on a CPU takes micro-batches in pieces."""
    if target.kind != "cpu" or target.world > 1 or target.deepspeed:
        return micros
    return [piece for micro in micros for piece in micro.pieces(1 + settings.pairs)]


def _cost(
    settings: Settings,
    folder: str,
    target: TargetDevice,
    micros: list[MicroBatchShape],
    start: ProcessBaseline,
    again: bool,
) -> tuple[dict[str, int], OpTracer]:
    """Memory by part at the peak, over the largest of `micros`; and the trace of a typical one. `again`: a
    micro-batch is more than one of them."""
    arguments = build_model_config(settings, folder, target.dtype)
    arguments.pop("type")
    arguments["objective"] = settings.objective
    for name in UNPLANNED:
        arguments.pop(name)
    words = loading.load_config(Path(folder)).get_text_config().vocab_size
    arguments["loss_chunk"] = chunk_rows(target.kind, words)
    outline = MetaModel(**arguments).train()
    largest, usual = max(micros, key=lambda m: (m.tokens, m.learned)), pick_typical(micros)
    keep = settings.accumulative_counts > 1 or again
    sharing = settings.sequence_parallel_size
    runs = [
        trace_micro_batch(outline, micro.shape(target.kind, sharing), target.rates, keep)
        for micro in ([largest, usual] if largest != usual else [largest])
    ]
    memory = _parts(settings, outline, runs[0], target, start)
    if target.kind == "cpu":
        lengths = {micro.shape(target.kind, sharing)["shape"] for micro in micros}
        memory["program"] += KERNEL * min(len(runs[0].kernels) * len(lengths), KEPT)
    return memory, runs[-1]


def _parts(
    settings: Settings,
    outline: MetaModel,
    run: OpTracer,
    target: TargetDevice,
    start: ProcessBaseline,
) -> dict[str, int]:
    held = {id(p): p for p in outline.parameters()}.values()
    trained = [p for p in held if p.requires_grad]
    count = sum(p.numel() for p in trained)
    own = sum(p.numel() * p.itemsize for p in trained)
    frozen = sum(p.numel() * p.itemsize for p in (*held, *outline.buffers())) - own
    if target.kind == "cpu":
        frozen -= outline.unread(start.words)
    per = optimizer_bytes(settings)
    gradients, states, share = own, per * count, target.world
    if target.deepspeed:
        half = 2 if target.dtype != "float32" else 4
        own, gradients, states = half * count, half * count, (per + 4) * count
    zero = (
        load_deepspeed_config(target.deepspeed).get("zero_optimization", {})
        if target.deepspeed
        else {}
    )
    stage, offload = zero.get("stage", 0), "offload_optimizer" in zero
    states = 0 if offload else states // share if stage else states
    gradients = gradients // share if stage >= 2 else gradients
    whole = own if outline.adapted else own + frozen
    weights, adapters = (frozen, own) if outline.adapted else (whole, 0)
    if stage == 3:
        weights = 0 if "offload_param" in zero else weights // share
    made = run.peak + (0 if run.kept_gradients else -min(run.peak, gradients))
    spread = 0
    if target.kind == "cpu":
        taken = grown(run.events, holes=start.holes, top=start.top)
        spread = max(taken - run.peak, 0) + PINNED * run.operations
    return {
        "weights": weights, "adapters": adapters, "gradients": gradients, "optimizer": states,
        "activations": max(made - run.peak_logits, 0), "logits": run.peak_logits, "allocator": spread,
        "program": start.program,
    }  # fmt: skip


def optimizer_bytes(settings: Settings) -> int:
    """Bytes of state that the optimizer keeps for each weight that trains."""
    name = settings.optimizer.rpartition(".")[2].lower()
    if "8bit" in name:
        return 2
    if "adam" in name or "lamb" in name:
        return 8
    return 4 if any(word in name for word in ("lion", "rmsprop", "adagrad")) else 0


def _step_seconds(
    settings: Settings,
    target: TargetDevice,
    run: OpTracer,
    memory: dict[str, int],
    micros: int,
    times: float,
) -> tuple[float, dict[str, float]]:
    """Seconds of a step, and of its kinds of work; `times` traces make a micro-batch, of which a process
    has `micros` in an epoch."""
    rates = target.rates
    count = min(settings.accumulative_counts, micros)
    spent: dict[str, float] = {
        kind: seconds * count * times for kind, seconds in run.seconds.items()
    }
    # Adam reads four numbers of a weight and writes three; clipping reads and writes its gradient.
    moved = 10 * memory["gradients"] if settings.max_norm else 7 * memory["gradients"]
    spent["optimizer"] = moved / rates.bytes
    if target.kind == "cuda":  # operations are started while others run
        started = spent.pop("starting operations")
        spent["waiting for the program"] = max(started - sum(spent.values()), 0.0)
    return sum(spent.values()), spent


def _suffices(
    settings: Settings,
    folder: str,
    target: TargetDevice,
    micros: list[MicroBatchShape],
    start: ProcessBaseline,
) -> bool:
    """Whether changed settings fit, on the same data as far as they allow it."""
    room = settings.max_length * settings.batch_size
    kept = [micro.within(room) for micro in micros]
    parts = _at_once(settings, target, kept)
    memory, _ = _cost(settings, folder, target, parts, start, len(parts) > len(kept))
    return sum(memory.values()) <= target.memory
