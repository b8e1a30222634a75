"""`train`: from a command's arguments to a run in this process, or in several that torchrun starts.

Knows nothing of how training works; `recipe.py` does.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.core.errors import (
    CheckpointError,
    DeviceError,
    ElysiaError,
    ModelError,
    UsageError,
)
from elysia.train.config.settings import Settings, load_settings

if TYPE_CHECKING:
    from elysia.train.engine.runner import TrainRunner

log = logging.getLogger(__name__)


def train(
    config: str,
    *,
    work_dir: str | None = None,
    deepspeed: str | None = None,
    resume: str | None = None,
    seed: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = "none",
) -> int:
    """Train a config; returns an exit code.

    resume: None, "auto" for the work dir's newest checkpoint (a fresh start when there is none), or
    a checkpoint's path. With NPROC_PER_NODE or NNODES above 1 and no launcher, torchrun is started
    with this very command, and its exit code is returned.
    """
    options = dict(cfg_options or {})
    if seed is not None:
        options["seed"] = seed
    settings = load_settings(config, options)  # complaints come before any process is started
    processes, nodes = _get_process_count("NPROC_PER_NODE"), _get_process_count("NNODES")
    if launcher == "none" and processes * nodes > 1:
        return _start_torchrun(processes, nodes)
    if launcher not in ("none", "pytorch", "slurm"):
        raise UsageError(
            f"--launcher {launcher} is not supported: use pytorch (torchrun) or slurm."
        )
    name = Path(config).stem
    folder = Path(work_dir or Path("work_dirs") / name)
    checkpoint = resolve_resume(resume, folder)
    run_training(settings, name, folder, deepspeed, checkpoint, launcher)
    return 0


def run_training(
    settings: Settings,
    name: str,
    work_dir: Path,
    deepspeed: str | None = None,
    resume: Path | None = None,
    launcher: str = "none",
) -> None:
    """Train in this process, to the end."""
    from elysia.train.distributed import comm

    try:
        runner = build_runner(settings, name, work_dir, deepspeed, resume, launcher)
        try:
            runner.train()
        finally:
            runner.close()
    finally:
        comm.destroy_process_group()


def build_runner(
    settings: Settings,
    name: str,
    work_dir: Path,
    deepspeed: str | None = None,
    resume: Path | None = None,
    launcher: str = "none",
) -> TrainRunner:
    """The runner that carries out the settings in this process; nothing is loaded yet."""
    make_work_dir(work_dir)
    from elysia.models import loading
    from elysia.train.config.builder import build_runner_config, describe_template_mismatch
    from elysia.train.config.preflight import check_compile, check_device
    from elysia.train.distributed import comm
    from elysia.train.engine.runner import RunnerConfig, TrainRunner

    if deepspeed and "zero3" in deepspeed and settings.method == "qlora":
        raise ModelError(
            "ZeRO-3 scatters weights, which 4-bit weights do not survive: use deepspeed_zero2 with "
            "method = 'qlora', or deepspeed_zero3 with method = 'lora'."
        )
    if deepspeed and "zero3" in deepspeed and settings.use_dora:
        raise ModelError(
            "ZeRO-3 scatters weights, whose rows DoRA must measure at every step: use "
            "deepspeed_zero2 with use_dora = True."
        )
    check_device(settings)
    check_compile(settings, deepspeed)
    if launcher != "none":
        comm.init_process_group(launcher)
    base = loading.resolve_model(settings.pretrained_model_name_or_path, settings.hub)
    warning = describe_template_mismatch(settings, loading.load_config(base).model_type)
    if warning:
        log.warning(warning)
    content = build_runner_config(
        settings,
        name=name,
        work_dir=str(work_dir),
        deepspeed=deepspeed,
        resume=str(resume) if resume else None,
        launcher=launcher,
    )
    dumped = work_dir / f"{name}.py"
    dumped.touch()  # MMEngine reads the file it is told of, and dumps the recipe under its name
    whole = RunnerConfig(content, filename=str(dumped))
    if settings.overrides:
        whole.merge_from_dict(settings.overrides)
    runner: TrainRunner = TrainRunner.from_cfg(whole)
    return runner


def make_work_dir(work_dir: Path) -> None:
    """Make a work dir; UsageError when that cannot be."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{work_dir} cannot be made ({error.strerror}): choose another --work-dir."
        ) from error


def resolve_resume(resume: str | None, work_dir: Path) -> Path | None:
    """The checkpoint that `resume` means (see `train`), or None for a fresh start."""
    if resume is None:
        return None
    if resume != "auto":
        path = Path(resume)
        if not path.exists():
            raise CheckpointError(f"There is no checkpoint at {path} to resume from.")
        return path
    from elysia.train.checkpoint import last_checkpoint

    found = last_checkpoint(work_dir)
    if found is None:
        log.warning("%s holds no checkpoint yet: training starts from the beginning.", work_dir)
    return found


def _get_process_count(name: str) -> int:
    value = os.environ.get(name, "1")
    if not value.isdigit() or int(value) < 1:
        raise UsageError(f"{name} is {value!r}; it must be a whole number from 1 on.")
    return int(value)


def train_subprocess(
    config: Path,
    work_dir: Path,
    resume: Path | None = None,
    *,
    deepspeed: str | None = None,
    processes: int = 1,
) -> None:
    """`elysia train` in a process of its own (or several), its words into a log beside `work_dir`.

    ElysiaError with its last words when it fails.
    """
    words = ["train", str(config), "--work-dir", str(work_dir)]
    words += ["--deepspeed", deepspeed] if deepspeed else []
    words += ["--resume", str(resume)] if resume else []
    run_subprocess(words, work_dir.with_name(f"{config.stem}.log"), processes)


def run_subprocess(words: list[str], log_file: Path, processes: int = 1) -> None:
    """`elysia WORDS` in `processes` new processes; ElysiaError with its last words when it fails."""
    single = [sys.executable, "-m", "elysia", *words]
    command = build_torchrun_command(words, processes) if processes > 1 else single
    env = os.environ | {"NPROC_PER_NODE": "1"}  # torchrun is started here
    with log_file.open("w", encoding="utf-8") as out:
        code = subprocess.call(command, stdout=out, stderr=subprocess.STDOUT, env=env)
    if code:
        said = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = (
            [line for line in said if line.startswith("error: ")] or said[-1:] or [f"code {code}"]
        )
        raise ElysiaError(f"{errors[0].removeprefix('error: ')} (elysia {' '.join(words)})")


def _start_torchrun(processes: int, nodes: int) -> int:
    """This command again, once per process; the children's exit code."""
    return subprocess.call(build_torchrun_command(sys.argv[1:], processes, nodes))


def build_torchrun_command(words: list[str], processes: int, nodes: int = 1) -> list[str]:
    """The command that runs `elysia WORDS` once per process; DeviceError when there are more of
    them than GPUs."""
    import torch

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise DeviceError(f"NPROC_PER_NODE is {processes}, but this machine has {gpus} GPU(s).")
    from elysia.train.distributed.comm import find_free_port

    return [
        sys.executable, "-m", "torch.distributed.run",
        f"--nproc_per_node={processes}", f"--nnodes={nodes}",
        f"--node_rank={os.environ.get('NODE_RANK', '0')}",
        f"--master_addr={os.environ.get('ADDR', '127.0.0.1')}",
        f"--master_port={os.environ.get('PORT', str(find_free_port()))}",
        "-m", "elysia", *words, "--launcher", "pytorch",
    ]  # fmt: skip
