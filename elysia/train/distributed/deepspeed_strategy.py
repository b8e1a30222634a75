"""DeepSpeed ZeRO: the strategy that runs it, on CUDA or CPU.

A checkpoint is a folder: `weights.safetensors` (trainable weights, whole, from the float32 masters),
`shared.pth`, and `rank_R.pth` with each process's part of the optimizer. Plain values only: DeepSpeed's
own files would need unpickling.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elysia.core.errors import CheckpointError, DeviceError
from elysia.core.run_card import RunCard
from elysia.train import checkpoint
from elysia.train.distributed import comm
from elysia.train.distributed.comm import barrier
from elysia.train.distributed.strategy import TrainStrategy
from elysia.train.engine import rng


class DeepSpeedStrategy(TrainStrategy):
    """DeepSpeed's engine around the model. Args: `config`, a DeepSpeed configuration.

    DeepSpeed reduces gradients as they come, so a step cannot be retried.
    """

    def __init__(
        self,
        *,
        config: dict[str, Any],
        dtype: str,
        max_norm: float,
        accumulative_counts: int,
        batch_size: int,
        launcher: str = "none",
        **kwargs: Any,
    ) -> None:
        self.config = {
            **config,
            "train_micro_batch_size_per_gpu": batch_size,
            "gradient_accumulation_steps": accumulative_counts,
            "gradient_clipping": max_norm,
            "bf16": {"enabled": dtype == "bfloat16"},
            "fp16": {"enabled": dtype == "float16", "initial_scale_power": 16},
            "steps_per_print": 10**9,
        }
        comm.init_process_group(launcher)
        super().__init__(**kwargs)

    def wrap(self, model: nn.Module) -> nn.Module:
        deepspeed = _import_deepspeed()
        # MMEngine watches `step` of its own wrapper, which DeepSpeed's engine steps past.
        warnings.filterwarnings("ignore", message="Detected call of `scheduler.step")
        self.engine, *_ = deepspeed.initialize(
            model=model, optimizer=self.optim_wrapper.optimizer, config=self.config
        )
        wrapped: nn.Module = self.engine
        return wrapped

    def sync_context(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        # The last step of an epoch may have fewer micro-batches than DeepSpeed was configured for.
        self.engine.set_gradient_accumulation_boundary(is_last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)  # the loop has weighted it by tokens

    def gradients(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_grad

        whole = {
            name: safe_get_full_grad(parameter)
            for name, parameter in self.unwrapped_model.named_parameters()
            if parameter.requires_grad
        }
        return {name: g.float().cpu() for name, g in whole.items() if g is not None}

    def step(self) -> None:
        self.engine.step()

    def save(self, path: Path, progress: dict[str, int], card: dict[str, Any]) -> None:
        """Every process writes its part into a folder beside `path`, renamed when all are there."""
        staging = path.with_name(f".{path.name}.writing")
        if self.rank == 0:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        barrier()
        weights = self._gather_weights()
        own = {"optimizer": self._get_optimizer_state(), "rng": rng.get_rng_state()}
        checkpoint.save(own, staging / f"rank_{self.rank}.pth")
        if self.rank == 0:
            checkpoint.save_weights(weights, staging / checkpoint.WEIGHTS)
            shared = {
                "format": checkpoint.FORMAT,
                "progress": progress,
                "world_size": self.world_size,
                "zero_stage": self.engine.zero_optimization_stage(),
                "param_schedulers": self.scheduler_state_dict(),
            }
            checkpoint.save(shared, staging / checkpoint.SHARED)
            RunCard.from_dict(card).write(staging)
        barrier()
        if self.rank == 0:
            if path.exists():
                checkpoint.remove(path)
            os.replace(staging, path)
        barrier()

    def _gather_weights(self) -> dict[str, Tensor]:
        """Whole float32 weights of everything that trains, on the first process; every process calls it."""
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {}
        for name, parameter in self.unwrapped_model.named_parameters():
            if not parameter.requires_grad:
                continue
            whole = safe_get_full_fp32_param(parameter)
            if self.rank == 0:
                weights[name] = whole.detach().float().cpu().clone()
        return weights

    def _get_optimizer_state(self) -> dict[str, Any]:
        """This process's optimizer state as plain values and tensors."""
        state = dict(self.engine.optimizer.state_dict())
        state.pop("param_slice_mappings", None)  # objects that only universal checkpoints need
        scaler = state.get("loss_scaler")
        state["loss_scaler"] = (
            {k: v for k, v in vars(scaler).items() if _is_plain(v)} if scaler else None
        )
        if "zero_stage" in state:
            state["zero_stage"] = int(state["zero_stage"])
        return state

    def restore(self, path: Path) -> dict[str, Any]:
        if not path.is_dir() or not (path / checkpoint.SHARED).exists():
            raise CheckpointError("train.checkpoint_not_of_deepspeed", path=path)
        shared = checkpoint.load(path / checkpoint.SHARED)
        stage = self.engine.zero_optimization_stage()
        if (shared["world_size"], shared["zero_stage"]) != (self.world_size, stage):
            raise CheckpointError(
                "train.checkpoint_zero_stage",
                path=path,
                written_by=shared["world_size"],
                written_stage=shared["zero_stage"],
                processes=self.world_size,
                stage=stage,
            )
        own = checkpoint.load(path / f"rank_{self.rank}.pth")
        if stage < 3:  # under ZeRO-3 the optimizer's float32 parts put the weights back
            weights = checkpoint.load_weights(path)
            self.unwrapped_model.load_trainable_state(
                {f"llm.{name}": w for name, w in weights.items()}
            )
        state = own["optimizer"]
        scaler = self.engine.optimizer.loss_scaler
        vars(scaler).update(state["loss_scaler"] or {})
        state["loss_scaler"] = scaler
        parts: list[Any] = [None] * self.world_size
        parts[self.rank] = state
        # From the masters: refreshing them from 16-bit weights would round what was learned.
        self.engine.optimizer.load_state_dict(
            parts, load_optimizer_states=True, load_from_fp32_weights=True
        )
        self.load_scheduler_state_dict(shared["param_schedulers"])
        card = RunCard.read(path)
        return {
            **shared,
            "rng": {self.rank: own["rng"]},
            "run_card": card.to_dict() if card else None,
        }


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | Tensor)


def _import_deepspeed() -> Any:
    """DeepSpeed, with its compiled extensions kept per environment; DeviceError when it is not installed or
    would wait for ever."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))
    _refuse_stale_lock(Path(os.environ["TORCH_EXTENSIONS_DIR"]))
    try:
        import deepspeed
    except ImportError as error:
        raise DeviceError("train.deepspeed_not_installed") from error
    if not torch.cuda.is_available():
        # Its shared-memory collectives are compiled at first use (a minute, a C++ compiler, and a
        # lock that outlives a kill). gloo serves a CPU as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _refuse_stale_lock(folder: Path, minutes: float = 10) -> None:
    """DeepSpeed waits for ever on the lock of a build that was killed."""
    for lock in folder.glob("**/lock"):
        age = (time.time() - lock.stat().st_mtime) / 60
        if age > minutes:
            raise DeviceError("train.deepspeed_stale_lock", path=lock, minutes=f"{age:.0f}")
