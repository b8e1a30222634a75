"""The meter: tokens a second, padding, use of the hardware, memory, into the log and TensorBoard."""

from __future__ import annotations

import logging
import time
from typing import Any

import psutil
import torch
from mmengine.hooks import Hook

from elysia.train.engine.loop import count_labelled_tokens, count_tokens
from elysia.train.planner import flops
from elysia.train.planner.hardware import peak_flops

log = logging.getLogger(__name__)


class ThroughputHook(Hook):  # type: ignore[misc]
    """Counts real tokens (no padding) of this process, times the number of processes.

    `mfu` is the share of the device's peak that what the method asks for takes, `hfu` the share of all
    that is carried out; both of this process's device. `flops.py` says what they count.
    """

    priority = "ABOVE_NORMAL"

    def before_train(self, runner: Any) -> None:
        model = runner.strategy.unwrapped_model
        self.work = None
        if model.is_reward_model:
            log.info("A model of numbers is metered without mfu and hfu.")
            return
        parameter = next(model.causal.parameters())
        self.segments = model.causal.config._attn_implementation == "elysia_segments"
        self.work = flops.count_token_work(
            model.causal,
            recomputed=bool(getattr(model.causal, "is_gradient_checkpointing", False)),
            reference=getattr(model, "objective", {}).get("kind") == "dpo" and model.adapted,
            segments=self.segments,
        )
        self.peak = peak_flops(parameter.device, model.dtype)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.begun = time.perf_counter()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        seconds = max(time.perf_counter() - self.begun, 1e-9)
        sharing = runner.train_loop.sharing  # processes that hold a slice each of the same rows
        world = runner.world_size / sharing
        update = runner.message_hub.update_scalar
        update("train/tokens_per_s", sum(map(count_tokens, data_batch)) * world / seconds)
        update(
            "train/labelled_per_s", sum(map(count_labelled_tokens, data_batch)) * world / seconds
        )
        if self.work is not None:
            device = runner.strategy.unwrapped_model.device_kind
            pieces = [piece for batch in data_batch for piece in runner.train_loop.pieces(batch)]
            loads = [flops.count_batch_load(piece, device, self.segments) for piece in pieces]
            positions = sum(load.positions for load in loads)
            update("train/padding", 1 - sum(load.tokens for load in loads) / max(positions, 1))
            for name, count in (("mfu", flops.useful_flops), ("hfu", flops.executed_flops)):
                done = sum(count(self.work, load) for load in loads) / sharing
                update(f"train/{name}", done / seconds / self.peak)
        if not torch.cuda.is_available():  # MMEngine itself logs the memory of a GPU
            update("train/rss_mb", psutil.Process().memory_info().rss / 2**20)
