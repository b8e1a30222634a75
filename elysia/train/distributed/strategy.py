"""How a model, its optimizer and its schedule live on devices: one, several (DDP), or ZeRO (`zero.py`).

MMEngine strategies that the runner drives; ours because exactness is theirs to keep: what a
checkpoint holds, and when gradients are exchanged. Knows nothing of data or of what is learned.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine._strategy import BaseStrategy
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from elysia.core.errors import CheckpointError
from elysia.train import checkpoint
from elysia.train.distributed import comm
from elysia.train.engine import rng


class SingleDevice(BaseStrategy):  # type: ignore[misc]
    """One process, one device."""

    model: Any
    _prepared: bool
    supports_retry = True  # whether a step's passes may be done again: no process waits for another

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

    # One step: for each micro-batch `backward(loss, last)` inside `exchange(last)`, then `step()`.

    def sync_context(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around a micro-batch; only the last of a step exchanges gradients between processes."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.optim_wrapper.backward(loss)

    def drop_gradients(self) -> None:
        """Forget the gradients of the step so far."""
        self.optim_wrapper.zero_grad()

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of a step, whole and over all processes, between its last backward and
        `step`, on the CPU in float32; every process calls it."""
        return {
            name: parameter.grad.detach().float().cpu()
            for name, parameter in self.unwrapped_model.named_parameters()
            if parameter.requires_grad and parameter.grad is not None
        }

    def step(self) -> None:
        self.optim_wrapper.step()
        self.optim_wrapper.zero_grad()

    # Checkpoints

    def save(self, path: Path, progress: dict[str, int], card: dict[str, Any]) -> None:
        """Write everything that resuming needs; every process calls it, the first one writes."""
        states = all_gather_object(rng.get_rng_state())
        if self.rank == 0:
            checkpoint.save(self._payload(progress, card, states), path)
        barrier()

    def _payload(
        self, progress: dict[str, int], card: dict[str, Any], states: list[Any]
    ) -> dict[str, Any]:
        return {
            "format": checkpoint.FORMAT,
            "state_dict": self.unwrapped_model.trainable_state(),
            "optimizer": self.optim_wrapper.state_dict(),
            "param_schedulers": self.scheduler_state_dict(),
            "rng": states,
            "progress": progress,
            "run_card": card,
            "meta": {"iter": progress["step"], "epoch": progress["epoch"], "seed": self.seed,
                     "time": time.strftime("%Y%m%d_%H%M%S")},
        }  # fmt: skip

    def restore(self, path: Path) -> dict[str, Any]:
        """Put model, optimizer and schedule back; returns the payload (its `rng` is restored later,
        by the loop, after everything that draws random numbers on the way)."""
        if path.is_dir():
            raise CheckpointError(
                f"{path} was written under DeepSpeed: resume it with the same --deepspeed preset."
            )
        payload = checkpoint.load(path)
        self._check(payload, path)
        self.unwrapped_model.load_trainable_state(payload["state_dict"])
        self.optim_wrapper.load_state_dict(payload["optimizer"])
        self.load_scheduler_state_dict(payload["param_schedulers"])
        return payload

    def _check(self, payload: dict[str, Any], path: Path) -> None:
        if payload.get("format") != checkpoint.FORMAT:
            raise CheckpointError(
                f"{path} holds weights but no exact state of a run (is it XTuner's own?). "
                "It can be converted and merged, not resumed."
            )
        if len(payload["rng"]) != self.world_size:
            raise CheckpointError(
                f"{path} was written by {len(payload['rng'])} processes, this run has "
                f"{self.world_size}: exact resuming needs as many as before."
            )

    # MMEngine's own three, which the runner's loops never reach here.

    def load_checkpoint(self, filename: str, **kwargs: Any) -> dict[str, Any]:
        return self.restore(Path(filename))

    def resume(self, filename: str, **kwargs: Any) -> dict[str, Any]:
        return self.restore(Path(filename))

    def save_checkpoint(self, filename: str, **kwargs: Any) -> None:
        raise CheckpointError("Checkpoints are written by CheckpointHook through `save`.")


class DataParallel(SingleDevice):
    """A copy of the model per process; gradients are averaged at the last micro-batch of a step."""

    supports_retry = False

    def _setup_distributed(self, launcher: str, **kwargs: Any) -> None:
        comm.init_process_group(launcher)

    def wrap(self, model: nn.Module) -> nn.Module:
        devices = [int(os.environ["LOCAL_RANK"])] if torch.cuda.is_available() else None
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def sync_context(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if last else self.model.no_sync()


def build_parameter_groups(model: nn.Module, lr: float, ratio: float) -> list[Any]:
    """What an optimizer takes as `params`: everything that trains, LoRA's B at `ratio` times `lr`.

    LoRA+ (https://arxiv.org/abs/2402.12354). A's factors, DoRA's magnitudes and heads keep `lr`.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if ratio == 1:
        return [p for _, p in named]
    second = [p for name, p in named if ".lora_B." in name]
    rest = [p for name, p in named if ".lora_B." not in name]
    return [{"params": rest, "lr": lr}, {"params": second, "lr": lr * ratio}]


def all_gather_object(value: Any) -> list[Any]:
    """`value` of every process, in order of rank, on every process."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for the other processes, if any."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def all_reduce_sum(value: float, device: torch.device | str = "cpu") -> float:
    """Sum of `value` over all processes."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return value
    place = "cuda" if dist.get_backend() == "nccl" else device
    tensor = torch.tensor(value, dtype=torch.float64, device=place)
    dist.all_reduce(tensor)
    return float(tensor.item())
