"""Proof that a run continues from a checkpoint as if it had never stopped: `verify_resume`.

A config is run on some of its own rows for N + M steps, then for N and, in a new process, for M.
The results are compared bit by bit, from the first step on, so that the first thing that differs
is the one that is reported. The caller passes the function that trains, which starts the processes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from elysia.core.errors import CheckpointError, UsageError
from elysia.train import checkpoint
from elysia.train.config.settings import Settings
from elysia.train.data.dataset import Pack, PackedDataset
from elysia.train.distributed.sequence_parallel import data_parallel_rank
from elysia.train.engine import rng
from elysia.train.engine.loop import Batch, TrainLoop
from elysia.train.engine.runner import class_path
from elysia.train.hooks.step_digest_hook import StepDigestHook, compute_digest, strip_reference

# train(config file, work dir, checkpoint to resume from or None): a whole run, in a process of its own.
TrainFunction = Callable[[Path, Path, Path | None], None]
FAR_STEP = 1_000_000  # too far to be reached by replaying the steps before it
COMPARED_PARTS = ("state_dict", "optimizer", "param_schedulers", "rng", "progress")


class SeekResult(NamedTuple):
    """How step `step` (from 0) was reached: after reading `packs` packs, of which its micro-batches hold
    `needed`, in `seconds`."""

    step: int
    packs: int
    needed: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class ResumeProof:
    """`differences` in the order in which they appear, empty where all bits are the same; how many `losses`
    and `numbers` in tensors were compared; and the seeks."""

    differences: tuple[str, ...]
    losses: int
    numbers: int
    seeks: tuple[SeekResult, ...]

    @property
    def holds(self) -> bool:
        return not self.differences and all(seek.packs == seek.needed for seek in self.seeks)


def verify_resume(
    settings: Settings,
    folder: Path,
    train: TrainFunction,
    *,
    steps: tuple[int, int] = (4, 4),
    rows: int = 256,
    world: int = 1,
) -> ResumeProof:
    """Run the three parts under `folder`, which is empty, and compare.

    steps: N and M. rows: how many of each source are trained on. world: the processes that `train`
    starts. Raises what `train` raises.
    """
    before, after = steps
    subset = build_subset(settings, rows)
    whole, cut = folder / "whole", folder / "cut"
    train(write_traced_config(subset, folder / "whole.py", sum(steps)), whole, None)
    train(write_traced_config(subset, folder / "first.py", sum(steps), until=before), cut, None)
    rest = write_traced_config(subset, folder / "rest.py", sum(steps))
    train(rest, cut, checkpoint.last_checkpoint(cut))
    diff = _BitwiseDiff()
    differences = [*_diff_traces(whole, cut, steps, world, diff)]
    if not differences:  # after a step that differs, everything differs
        name = f"iter_{before + after}.pth"
        differences = [*diff.checkpoints(whole / name, cut / name)]
    places = [0, before, before + after - 1, FAR_STEP]
    seeks = check_seeks(subset, places, world, _read_trace(whole, 0))
    return ResumeProof(tuple(differences), diff.losses, diff.numbers, tuple(seeks))


def build_subset(settings: Settings, rows: int) -> Settings:
    """`settings` on at most `rows` rows of each source (and those held out), without long replies
    in its evaluations."""
    held = round(settings.heldout) if settings.heldout >= 1 else 0
    sources = [
        source | {"limit": min(source["limit"] or rows + held, rows + held)}
        for source in settings.sources
    ]
    return settings.replace(
        data_path=sources,
        mmlu_path="",
        evaluation_max_new_tokens=min(settings.evaluation_max_new_tokens, 8),
    )


def write_traced_config(settings: Settings, path: Path, steps: int, until: int = 0) -> Path:
    """A config file of `settings` that runs for `steps`, is traced, and stops after `until`."""
    digest_hook = {"type": class_path(StepDigestHook), "until": until}
    values = settings.to_dict() | {
        "max_steps": steps,
        "save_steps": 0,
        "save_total_limit": 0,
        "logging_interval": 1,
        "overrides": settings.overrides | {"default_hooks.trace": digest_hook},
    }
    path.write_text("".join(f"{k} = {v!r}\n" for k, v in values.items()), encoding="utf-8")
    return path


def parse_steps(text: str) -> tuple[int, int]:
    """N and M of "N+M"; UsageError when it is not that.

    >>> parse_steps("20+5")
    (20, 5)
    """
    match = re.fullmatch(r"\s*(\d+)\s*\+\s*(\d+)\s*", text)
    if not match or not int(match[1]) or not int(match[2]):
        raise UsageError("train.steps_not_n_plus_m", text=text)
    return int(match[1]), int(match[2])


def _read_trace(work_dir: Path, rank: int) -> dict[int, dict[str, Any]]:
    """The traced steps of one process, by number."""
    path = work_dir / f"trace_{rank}.jsonl"
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise CheckpointError("train.trace_unreadable", path=path, reason=error.strerror) from error
    return {line["step"]: line for line in map(json.loads, lines)}


def _diff_traces(
    whole: Path, cut: Path, steps: tuple[int, int], world: int, diff: _BitwiseDiff
) -> Iterator[str]:
    """What differs at the first step that does."""
    before, after = steps
    traces = [(_read_trace(whole, rank), _read_trace(cut, rank)) for rank in range(world)]
    for step in range(1, before + after + 1):
        differs = []
        for rank, (first, second) in enumerate(traces):
            where = f"step {step}" + (f" of process {rank}" if world > 1 else "")
            if step not in first or step not in second:
                differs.append(f"{where}: one of the runs has no such step")
                continue
            diff.losses += 1
            differs += [
                f"{where}: {name} is {value} in the whole run and {second[step].get(name)} in "
                f"the {'first part' if step <= before else 'resumed part'}"
                for name, value in first[step].items()
                if second[step].get(name) != value
            ]
        if differs:
            yield from differs
            if step <= before:
                yield (
                    "This is before the interruption: two equal runs differ on this device, so "
                    "this says nothing about resuming"
                )
            return


class _BitwiseDiff:
    """Compares values bit by bit, and counts what it compared."""

    def __init__(self) -> None:
        self.losses = self.numbers = 0

    def checkpoints(self, first: Path, second: Path) -> Iterator[str]:
        """What differs between two checkpoints, files or folders."""
        parts = zip(_iter_parts(first), _iter_parts(second), strict=True)
        for (name, first_part), (_, second_part) in parts:
            yield from self.values(first_part, second_part, name)

    def values(self, first: Any, second: Any, where: str) -> Iterator[str]:
        """What differs between nested dicts, lists, tensors and plain values."""
        if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
            self.numbers += first.numel()
            yield from _diff_tensors(first, second, where)
        elif isinstance(first, dict) and isinstance(second, dict):
            for key in [*first, *(key for key in second if key not in first)]:
                if key not in first or key not in second:
                    yield f"{where}.{key}: only one of the runs has it"
                else:
                    yield from self.values(first[key], second[key], f"{where}.{key}")
        elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
            if len(first) != len(second):
                yield f"{where}: {len(first)} entries against {len(second)}"
            for index, (a, b) in enumerate(zip(first, second, strict=False)):
                yield from self.values(a, b, f"{where}[{index}]")
        elif repr(first) != repr(second):  # exact for floats, and nan is nan
            yield f"{where}: {first!r} against {second!r}"


def _diff_tensors(first: torch.Tensor, second: torch.Tensor, where: str) -> Iterator[str]:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        yield f"{where}: {first.dtype} {tuple(first.shape)} against {second.dtype} {tuple(second.shape)}"
        return
    # As bytes: -0.0 is not 0.0, and a nan is itself.
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second))
    if torch.equal(a, b):
        return
    size = first.element_size()
    count = int((a != b).view(-1, size).any(1).sum())
    largest = float((first.double() - second.double()).abs().max())
    yield f"{where}: {count} of {first.numel()} numbers differ, by up to {largest:.3g}"


def _iter_parts(path: Path) -> Iterator[tuple[str, Any]]:
    """The parts of a checkpoint that determine how a run continues, by name."""
    if not path.is_dir():
        payload = checkpoint.load(path)
        yield from ((name, payload[name]) for name in COMPARED_PARTS)
        return
    yield "weights", checkpoint.load_weights(path)
    for file in sorted(path.glob("*.pth")):
        yield file.stem, checkpoint.load(file)


class CountingDataset(PackedDataset):
    """The training's rows, counting the packs that are read."""

    read = 0

    def __getitem__(self, index: int) -> Pack:
        self.read += 1
        return super().__getitem__(index)


class _FirstStepLoop(TrainLoop):
    """The training's loop, which stores its first step's micro-batches and stops."""

    window: list[Batch]

    def run_step(self, window: list[Batch], data_time: float) -> None:
        self.window = window
        self.stop_training = True


def check_seeks(
    settings: Settings, steps: list[int], world: int, trace: dict[int, dict[str, Any]]
) -> list[SeekResult]:
    """Let the training's own loop seek each of `steps` (from 0) directly, as the first of `world`
    processes, and count what it reads. CheckpointError when the data there is not that of `trace`.
    """
    from elysia.train.config.builder import build_runner_config
    from elysia.train.engine.runner import TrainRunner

    config = build_runner_config(settings, name="seek", work_dir="")["train_dataloader"]
    config["dataset"]["type"] = class_path(CountingDataset)
    config["sampler"]["sequence_parallel_size"] = 1  # this process alone stands for the first
    loader = TrainRunner.build_dataloader(config | {"num_workers": 0}, seed=settings.seed)
    loader.sampler.rank, loader.sampler.world = data_parallel_rank(
        settings.sequence_parallel_size, 0, world
    )
    data = loader.dataset
    runner = SimpleNamespace(call_hook=lambda *_, **__: None, model=None)
    results = []
    for step in steps:
        data.read = 0
        loop = _FirstStepLoop(runner, loader, 1, 2 * FAR_STEP, settings.accumulative_counts)
        start = time.perf_counter()
        epoch, rest = divmod(step, loop.steps_per_epoch)
        with rng.preserve_rng_state():
            loop.seek({"step": step, "epoch": epoch, "step_in_epoch": rest}, rng.get_rng_state())
            loop.run()
        seconds = time.perf_counter() - start
        needed = len(loop.window) * settings.batch_size
        results.append(SeekResult(step, data.read, needed, seconds))
        digest = compute_digest(strip_reference(loop.window))
        traced = trace.get(step + 1)
        if traced and traced["data"] != digest:
            raise CheckpointError(
                "train.seek_other_rows", step=step + 1, actual=digest, expected=traced["data"]
            )
    return results
