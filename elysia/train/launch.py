"""Starting a training: from a command's arguments to a run in this process, or in several that torchrun
starts.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.core.errors import CheckpointError, DeviceError, ElysiaError, UsageError
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
    settings = load_settings(config, options)  # first: errors appear before any process starts
    processes, nodes = _get_process_count("NPROC_PER_NODE"), _get_process_count("NNODES")
    if launcher == "none" and processes * nodes > 1:
        return subprocess.call(build_torchrun_command(sys.argv[1:], processes, nodes))
    if launcher not in ("none", "pytorch", "slurm"):
        raise UsageError("train.unknown_launcher", launcher=launcher)
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
    from elysia.models.hub import resolve_model
    from elysia.models.loading import load_config
    from elysia.train.config.builder import build_runner_config
    from elysia.train.config.validation import (
        check_deepspeed,
        check_device,
        describe_template_mismatch,
    )
    from elysia.train.distributed import comm
    from elysia.train.engine.runner import RunnerConfig, TrainRunner

    check_deepspeed(settings, deepspeed)
    check_device(settings)
    if launcher != "none":
        comm.init_process_group(launcher)
    base = resolve_model(settings.pretrained_model_name_or_path, settings.hub)
    warning = describe_template_mismatch(settings, load_config(base).model_type)
    if warning:
        log.warning("%s", warning)
    content = build_runner_config(
        settings,
        name=name,
        work_dir=str(work_dir),
        deepspeed=deepspeed,
        resume=str(resume) if resume else None,
        launcher=launcher,
    )
    dump = work_dir / f"{name}.py"
    dump.touch()  # MMEngine requires the file to exist, and dumps the config under its name
    config = RunnerConfig(content, filename=str(dump))
    if settings.overrides:
        config.merge_from_dict(settings.overrides)
    runner: TrainRunner = TrainRunner.from_cfg(config)
    return runner


def make_work_dir(work_dir: Path) -> None:
    """Make a work dir; UsageError when that is not possible."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("train.work_dir", path=work_dir, reason=error.strerror) from error


def resolve_resume(resume: str | None, work_dir: Path) -> Path | None:
    """The checkpoint that `resume` means (see `train`), or None for a fresh start."""
    if resume is None:
        return None
    if resume != "auto":
        path = Path(resume)
        if not path.exists():
            raise CheckpointError("train.no_checkpoint_to_resume", path=path)
        return path
    from elysia.train.checkpoint import last_checkpoint

    newest = last_checkpoint(work_dir)
    if newest is None:
        log.warning("%s holds no checkpoint yet: training starts from the beginning.", work_dir)
    return newest


def _get_process_count(name: str) -> int:
    """The number in the environment variable `name`, 1 where it is not set."""
    value = os.environ.get(name, "1")
    if not value.isdigit() or int(value) < 1:
        raise UsageError("train.process_count", name=name, value=repr(value))
    return int(value)


def train_subprocess(
    config: Path,
    work_dir: Path,
    resume: Path | None = None,
    *,
    deepspeed: str | None = None,
    processes: int = 1,
) -> None:
    """`elysia train` in one new process or several, its output in a log beside `work_dir`.

    ElysiaError with its last line when it fails.
    """
    arguments = ["train", str(config), "--work-dir", str(work_dir)]
    arguments += ["--deepspeed", deepspeed] if deepspeed else []
    arguments += ["--resume", str(resume)] if resume else []
    run_subprocess(arguments, work_dir.with_name(f"{config.stem}.log"), processes)


def run_subprocess(arguments: list[str], log_file: Path, processes: int = 1) -> None:
    """`elysia ARGUMENTS` in `processes` new processes; ElysiaError with its last line when it fails."""
    single = [sys.executable, "-m", "elysia", *arguments]
    command = build_torchrun_command(arguments, processes) if processes > 1 else single
    env = os.environ | {"NPROC_PER_NODE": "1"}  # else each process would start torchrun again
    with log_file.open("w", encoding="utf-8") as out:
        code = subprocess.call(command, stdout=out, stderr=subprocess.STDOUT, env=env)
    if code:
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        reason = (errors or lines[-1:] or [f"code {code}"])[0].removeprefix("error: ")
        raise ElysiaError("train.subprocess_failed", reason=reason, command=" ".join(arguments))


def build_torchrun_command(arguments: list[str], processes: int, nodes: int = 1) -> list[str]:
    """The command that runs `elysia ARGUMENTS` once per process; DeviceError when there are more of
    them than GPUs."""
    import torch

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise DeviceError("train.more_processes_than_gpus", processes=processes, gpus=gpus)
    from elysia.train.distributed.comm import find_free_port

    return [
        sys.executable, "-m", "torch.distributed.run",
        f"--nproc_per_node={processes}", f"--nnodes={nodes}",
        f"--node_rank={os.environ.get('NODE_RANK', '0')}",
        f"--master_addr={os.environ.get('ADDR', '127.0.0.1')}",
        f"--master_port={os.environ.get('PORT', str(find_free_port()))}",
        "-m", "elysia", *arguments, "--launcher", "pytorch",
    ]  # fmt: skip
