"""Measures one micro-batch of a training in processes of their own: seconds, and memory at the peak.

The processes build the model, the data and the optimizer as training does, and take a few steps that
are not kept. `measure_micro_batch` starts them; run as a module, this file is one of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elysia.core.errors import ElysiaError
from elysia.train.config.settings import Settings, build_settings

# What training does beside its steps, and what would reach out of this machine.
SWITCHED_OFF: dict[str, Any] = {
    "evaluation_inputs": [], "persona_freq": 0, "mmlu_path": "", "report_to": "none", "save_steps": 0,
}  # fmt: skip
ENOUGH_SECONDS = 4.0  # of timed steps; they end sooner when all chosen micro-batches were timed
SLOW_SECONDS = 30.0  # a first step that takes so long is taken as it is, whatever it compiled
TIME_LIMIT = 3600


@dataclass(frozen=True)
class StepMeasurement:
    """Seconds of a micro-batch (forward and backward) and of an optimizer step; bytes of the process
    at its peak, and before the model was loaded."""

    micro_batch_seconds: float
    optimizer_seconds: float
    peak: int
    program: int


def measure_micro_batch(
    settings: Settings,
    typical: list[list[int]],
    largest: list[int],
    deepspeed: str = "",
    processes: int = 1,
) -> StepMeasurement:
    """Train a few steps in `processes` processes of this machine.

    typical: packs (indices of the training's dataset) of the micro-batches that are timed; largest:
    those of the one that needs the most memory. ElysiaError with the process's last words when it fails.
    """
    with tempfile.TemporaryDirectory(prefix="elysia-plan-") as name:
        folder = Path(name)
        job = {
            "settings": settings.to_dict() | SWITCHED_OFF,
            "typical": typical,
            "largest": largest,
            "deepspeed": deepspeed,
            "launcher": "pytorch" if processes > 1 else "none",
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run_processes(folder, processes)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return StepMeasurement(**result)


def _run_processes(folder: Path, processes: int) -> None:
    from elysia.train.distributed.comm import find_free_port

    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port())}
    command = [sys.executable, "-m", "elysia.train.planner.measure", str(folder)]
    log_file = folder / "log.txt"
    with log_file.open("w", encoding="utf-8") as log:
        children = []
        for rank in range(processes):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
            if processes > 1:  # as torchrun sets them, one thread included
                env |= {key: str(value) for key, value in numbers.items()}
                env.setdefault("OMP_NUM_THREADS", "1")
            children.append(subprocess.Popen(command, stdout=log, stderr=log, env=env))
        try:
            codes = [child.wait(TIME_LIMIT) for child in children]
        except subprocess.TimeoutExpired as error:
            raise ElysiaError("train.plan_no_step", seconds=TIME_LIMIT) from error
        finally:
            for child in children:
                child.kill()
    if any(codes):
        lines = log_file.read_text(encoding="utf-8", errors="replace").split("\n")
        last_words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        code = max(codes, key=abs)
        raise ElysiaError("train.plan_process_failed", code=code, last_words=last_words)


def run_job(folder: Path) -> None:
    """Carry out `job.json` of a folder; the first process writes `result.json` there."""
    from elysia.train.distributed import comm
    from elysia.train.launch import build_runner

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    settings = build_settings(job["settings"], "the plan")
    try:
        runner: Any = build_runner(
            settings,
            "plan",
            folder / "work_dir",
            job["deepspeed"] or None,
            launcher=job["launcher"],
        )
        program = _build(runner)
        batches = [_load_batch(runner, settings, packs) for packs in job["typical"]]
        largest = _load_batch(runner, settings, job["largest"])
        window = min(
            settings.accumulative_counts, 2
        )  # with a second one, gradients are there already
        seconds = _time_steps(runner, batches, [largest] * window)
        if runner.rank == 0:
            result = StepMeasurement(*seconds, peak=_get_peak(), program=program)
            (folder / "result.json").write_text(json.dumps(asdict(result)), encoding="utf-8")
    finally:
        comm.destroy_process_group()


def _build(runner: Any) -> int:
    """Build everything; returns the bytes of this process when all but the model was there."""
    import psutil

    used: list[int] = []
    prepare = runner.strategy.prepare

    def prepare_model(*args: Any, **kwargs: Any) -> Any:
        used.append(int(psutil.Process().memory_info().rss))
        return prepare(*args, **kwargs)

    runner.strategy.prepare = prepare_model
    runner.build()
    runner._hooks = []  # they log, save and evaluate
    return used[0]


def _load_batch(runner: Any, settings: Settings, packs: list[int]) -> dict[str, Any]:
    import torch

    loader = runner.train_dataloader
    data = loader.dataset
    if settings.objective == "dpo" and settings.method == "full" and data.reference is None:
        # Training takes it from the base model before its first step; here any numbers serve.
        data.reference = torch.zeros(len(data.tokens.lengths) // 2, 2)
    batch: dict[str, Any] = loader.collate_fn([data[index] for index in packs])
    return batch


def _time_steps(
    runner: Any, batches: list[dict[str, Any]], largest: list[dict[str, Any]]
) -> tuple[float, float]:
    """Seconds of a micro-batch and of an optimizer step.

    The first step makes the optimizer's states and the kernels of the usual shapes, the second reaches
    the peak of memory; the others are timed.
    """
    loop, step, optimizer_seconds = runner.train_loop, runner.strategy.step, []

    def timed_step() -> None:
        optimizer_seconds.append(_time_call(step))

    runner.strategy.step = timed_step
    first = _time_call(lambda: loop.run_step([batches[0]], 0.0))
    loop.run_step(largest, 0.0)
    seconds: list[float] = []
    if first > SLOW_SECONDS:
        return first - optimizer_seconds[0], optimizer_seconds[0]
    del optimizer_seconds[:]
    for batch in batches:
        seconds.append(_time_call(lambda batch=batch: loop.run_step([batch], 0.0)))
        if sum(seconds) > ENOUGH_SECONDS and len(seconds) >= 3:
            break
    optimizer = statistics.fmean(optimizer_seconds)
    return statistics.fmean(seconds) - optimizer, optimizer


def _time_call(call: Any) -> float:
    """Seconds of a call: by the clock, or of one thread's processor time where that is less, so that
    other programs on the machine do not count."""
    import torch

    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    alone = not torch.cuda.is_available() and torch.get_num_threads() == 1
    return min(wall, cpu) if alone else wall


def _get_peak() -> int:
    from elysia.train.hooks.plan_report_hook import get_peak_memory

    return int(get_peak_memory())


if __name__ == "__main__":
    run_job(Path(sys.argv[1]))
