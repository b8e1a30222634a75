"""How a model, its optimizer and its schedule live on devices: on one, or as a copy per process (DDP).
ZeRO is in `deepspeed_strategy.py`.

These are MMEngine strategies, which the runner drives. They are our own because two things must be exact:
what a checkpoint holds, and when gradients are exchanged.
"""

from __future__ import annotations

import contextlib
import os
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from elysia.core.errors import CheckpointError
from elysia.train import checkpoint
from elysia.train.distributed import comm
from elysia.train.engine import rng
from elysia.train.engine.optimization import build_parameter_groups
from elysia.train.engine.runner import BaseStrategy


class TrainStrategy(BaseStrategy):  # type: ignore[misc]
    """What every way of training has in common: it builds model, optimizer and schedule, and takes steps.

    A step is, for each micro-batch, `backward(loss)` inside `sync_context(is_last)`, then `step()`.
    """

    model: Any
    _prepared: bool
    # Whether the passes of a step may be done again (after running out of memory): no other process
    # waits for this one.
    supports_retry = False

    def prepare(
        self,
        model: Any,
        *,
        optim_wrapper: Any = None,
        param_scheduler: Any = None,
        compile: Any = False,
        dispatch_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Build model, optimizer and schedule, in that order, once."""
        if self._prepared:
            return self._prepared_components()
        self.dispatch_kwargs.update(dispatch_kwargs or {})
        self.unwrapped_model = self.build_model(model)
        if optim_wrapper is not None:
            self.optim_wrapper = self.build_optim_wrapper(self._with_trainable(optim_wrapper))
            self.param_schedulers = self.build_param_scheduler(param_scheduler, self.optim_wrapper)
        self.model = self.wrap(self.unwrapped_model)
        # Processes start from the same adapters (wrap broadcasts them) but draw their own dropout.
        torch.manual_seed(self.seed + self.rank)
        self._prepared = True
        return self._prepared_components()

    def _with_trainable(self, optim_wrapper: Any) -> dict[str, Any]:
        """The wrapper's config with an optimizer over trainable parameters only."""
        config = dict(optim_wrapper)
        groups = build_parameter_groups(
            self.unwrapped_model, config["optimizer"]["lr"], config.pop("loraplus_lr_ratio", 1.0)
        )
        config["optimizer"] = OPTIMIZERS.build({**config["optimizer"], "params": groups})
        return config

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module whose forward the loop calls."""
        return model

    def sync_context(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a micro-batch; only the last one of a step exchanges gradients between processes."""
        return contextlib.nullcontext()

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch."""

    @abstractmethod
    def step(self) -> None:
        """Change the weights by the gradients so far, and clear them."""

    @abstractmethod
    def gradients(self) -> dict[str, Tensor]:
        """The gradients of a step by parameter name, whole and over all processes, between its last
        backward and `step`, on the CPU in float32; every process calls it."""

    @abstractmethod
    def save(self, path: Path, progress: dict[str, int], card: dict[str, Any]) -> None:
        """Write everything that resuming needs; every process calls it."""

    @abstractmethod
    def restore(self, path: Path) -> dict[str, Any]:
        """Put model, optimizer and schedule back; returns the payload (its `rng` is restored later,
        by the loop, after everything that draws random numbers on the way)."""

    # MMEngine's own three, which the runner's loops never call here.

    def load_checkpoint(self, filename: str, **kwargs: Any) -> dict[str, Any]:
        return self.restore(Path(filename))

    def resume(self, filename: str, **kwargs: Any) -> dict[str, Any]:
        return self.restore(Path(filename))

    def save_checkpoint(self, filename: str, **kwargs: Any) -> None:
        raise NotImplementedError("CheckpointHook writes checkpoints, through `save`")


class SingleDeviceStrategy(TrainStrategy):
    """One process, one device. A checkpoint is one file."""

    supports_retry = True

    def backward(self, loss: Tensor) -> None:
        self.optim_wrapper.backward(loss)

    def drop_gradients(self) -> None:
        """Forget the gradients of the step so far."""
        self.optim_wrapper.zero_grad()

    def gradients(self) -> dict[str, Tensor]:
        return {
            name: parameter.grad.detach().float().cpu()
            for name, parameter in self.unwrapped_model.named_parameters()
            if parameter.requires_grad and parameter.grad is not None
        }

    def step(self) -> None:
        self.optim_wrapper.step()
        self.optim_wrapper.zero_grad()

    def save(self, path: Path, progress: dict[str, int], card: dict[str, Any]) -> None:
        states = comm.all_gather_object(rng.get_rng_state())
        if self.rank == 0:
            checkpoint.save(self._build_payload(progress, card, states), path)
        comm.barrier()

    def _build_payload(
        self, progress: dict[str, int], card: dict[str, Any], rng_states: list[Any]
    ) -> dict[str, Any]:
        return {
            "format": checkpoint.FORMAT,
            "state_dict": self.unwrapped_model.trainable_state(),
            "optimizer": self.optim_wrapper.state_dict(),
            "param_schedulers": self.scheduler_state_dict(),
            "rng": rng_states,
            "progress": progress,
            "run_card": card,
            "meta": {"iter": progress["step"], "epoch": progress["epoch"], "seed": self.seed,
                     "time": time.strftime("%Y%m%d_%H%M%S")},
        }  # fmt: skip

    def restore(self, path: Path) -> dict[str, Any]:
        if path.is_dir():
            raise CheckpointError("train.checkpoint_of_deepspeed", path=path)
        payload = checkpoint.load(path)
        self._check(payload, path)
        self.unwrapped_model.load_trainable_state(payload["state_dict"])
        self.optim_wrapper.load_state_dict(payload["optimizer"])
        self.load_scheduler_state_dict(payload["param_schedulers"])
        return payload

    def _check(self, payload: dict[str, Any], path: Path) -> None:
        if payload.get("format") != checkpoint.FORMAT:
            raise CheckpointError("train.checkpoint_not_resumable", path=path)
        if len(payload["rng"]) != self.world_size:
            raise CheckpointError(
                "train.checkpoint_world_size",
                path=path,
                written_by=len(payload["rng"]),
                processes=self.world_size,
            )


class DDPStrategy(SingleDeviceStrategy):
    """A copy of the model per process; gradients are averaged at the last micro-batch of a step.

    Its checkpoint is that of one device, with the random state of every process.
    """

    supports_retry = False

    def _setup_distributed(self, launcher: str, **kwargs: Any) -> None:
        comm.init_process_group(launcher)

    def wrap(self, model: nn.Module) -> nn.Module:
        devices = [int(os.environ["LOCAL_RANK"])] if torch.cuda.is_available() else None
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def sync_context(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if is_last else self.model.no_sync()
