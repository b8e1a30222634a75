"""Tokens a second, labelled tokens a second and memory, into the log and TensorBoard."""

from __future__ import annotations

import time
from typing import Any

import psutil
import torch
from mmengine.hooks import Hook

from elysia.train.loop import count_labelled, count_tokens


class ThroughputHook(Hook):  # type: ignore[misc]
    """Counts real tokens (no padding) of this process, times the number of processes."""

    priority = "ABOVE_NORMAL"

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.begun = time.perf_counter()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        seconds = max(time.perf_counter() - self.begun, 1e-9)
        world = runner.world_size
        update = runner.message_hub.update_scalar
        update("train/tokens_per_s", sum(map(count_tokens, data_batch)) * world / seconds)
        update("train/labelled_per_s", sum(map(count_labelled, data_batch)) * world / seconds)
        if not torch.cuda.is_available():  # MMEngine itself logs the memory of a GPU
            update("train/rss_mb", psutil.Process().memory_info().rss / 2**20)
