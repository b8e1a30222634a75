"""The training loop. A step is one optimizer step: `accumulative_counts` micro-batches, weighted by tokens.

Its place in the data is (epoch, step in the epoch); any place is reached without replaying. MMEngine's
hooks see a step as an iteration.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from elysia.core.errors import DeviceError, ElysiaError
from elysia.data.tokenize.encoder import IGNORE
from elysia.train.data import microbatch
from elysia.train.data.dataset import EpochSampler
from elysia.train.distributed.comm import all_reduce_sum
from elysia.train.engine import rng
from elysia.train.engine.runner import BaseLoop

Batch = dict[str, Any]


class TrainLoop(BaseLoop):  # type: ignore[misc]
    """Runs `max_epochs` over the data, or `max_steps` steps when that is above 0."""

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        max_steps: int = 0,
        accumulative_counts: int = 1,
        sequence_parallel_size: int = 1,
    ) -> None:
        super().__init__(runner, dataloader)
        self.accumulative_counts = accumulative_counts
        self.steps_per_epoch = -(-len(self.dataloader) // accumulative_counts)
        self._max_iters = max_steps or max_epochs * self.steps_per_epoch
        self._max_epochs = -(-self._max_iters // self.steps_per_epoch)
        self._iter = self._epoch = self.step_in_epoch = 0
        self.sequence_parallel_size = sequence_parallel_size
        self.stop_training = False  # set by hooks that stop early
        self.stop_reason = ""  # and why, as a sentence
        self.best_step = 0  # set by a hook that measures: its checkpoint stays
        self.parts = 1  # parts of a micro-batch; doubled when the memory of a GPU does not suffice
        self.resumed_rng: dict[str, Any] | None = None

    @property
    def max_epochs(self) -> int:
        return self._max_epochs

    @property
    def max_iters(self) -> int:
        """Steps of the whole run."""
        return self._max_iters

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def iter(self) -> int:
        """Steps done; inside a hook's `after_train_iter`, the 0-based number of the step just done."""
        return self._iter

    def progress(self) -> dict[str, int]:
        """Where the run will stand once the current step is counted."""
        return {
            "step": self._iter + 1,
            "epoch": self._epoch,
            "step_in_epoch": self.step_in_epoch + 1,
        }

    def seek(self, progress: dict[str, int], state: dict[str, Any]) -> None:
        """Continue from `progress`, with randomness from `state`."""
        self._iter, self._epoch = progress["step"], progress["epoch"]
        self.step_in_epoch = progress["step_in_epoch"]
        self.resumed_rng = state

    def run(self) -> Any:
        """Train to the end; hooks are called as in MMEngine's iteration loop."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        while self._iter < self._max_iters and not self.stop_training:
            if self.step_in_epoch >= self.steps_per_epoch:
                self._epoch, self.step_in_epoch = self._epoch + 1, 0
            self._rest_of_epoch()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _rest_of_epoch(self) -> None:
        sampler: EpochSampler = self.dataloader.sampler
        sampler.seek(self._epoch, self.step_in_epoch * self.accumulative_counts)
        with rng.preserve_rng_state():  # making an iterator draws a number
            batches = iter(self.dataloader)
        if self.resumed_rng is not None:
            rng.set_rng_state(self.resumed_rng)
            self.resumed_rng = None
        while self._iter < self._max_iters and not self.stop_training:
            start = time.perf_counter()
            window = list(itertools.islice(batches, self.accumulative_counts))
            if not window:
                return
            self.run_step(window, time.perf_counter() - start)
            self._iter += 1
            self.step_in_epoch += 1

    def run_step(self, window: list[Batch], data_time: float) -> None:
        """One optimizer step over `window`; the loss is the mean over its labelled tokens (or its
        pairs), wherever they lie: neither the number of micro-batches nor of processes changes it."""
        runner, strategy = self.runner, self.runner.strategy
        runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=window)
        runner.model.train()
        # Processes that share a row have each counted all of it.
        units = (
            all_reduce_sum(sum(count_units(batch) for batch in window))
            / self.sequence_parallel_size
        )
        loss_sum, metrics = self._compute_gradients(window, strategy.world_size / max(units, 1))
        mean = all_reduce_sum(loss_sum) / max(units, 1)
        if not math.isfinite(mean):
            raise ElysiaError("train.loss_not_finite", loss=mean, step=self._iter + 1)
        strategy.step()
        runner.call_hook(
            "after_train_iter",
            batch_idx=self._iter,
            data_batch=window,
            outputs={
                "loss": torch.tensor(mean),
                **{name: all_reduce_sum(value) / max(units, 1) for name, value in metrics.items()},
            },
        )

    def _compute_gradients(self, window: list[Batch], scale: float) -> tuple[float, Counter[str]]:
        """Forward and backward of `window`: (its summed loss, the summed metrics of the model).

        When a GPU runs out of memory, the gradients so far are dropped and all is done again in smaller
        micro-batches: the loss is a sum over the window, so its gradient is the same.
        """
        while True:
            parts = [part for batch in window for part in self.split(batch)]
            try:
                return self._run_passes(parts, scale)
            except torch.OutOfMemoryError as error:
                reason = error
            # Outside of `except`, whose traceback holds the tensors of the pass.
            self._halve(window, reason)

    def split(self, batch: Batch) -> list[Batch]:
        """What goes through the network at once. A CPU is no faster with more than some hundred tokens,
        and with fewer there is less to keep for the backward pass.
        """
        strategy = self.runner.strategy
        if (
            self.parts == 1
            and strategy.supports_retry
            and strategy.unwrapped_model.device_kind == "cpu"
        ):
            return microbatch.split_by_tokens(batch, microbatch.CPU_TOKENS)
        return microbatch.split_evenly(batch, self.parts)

    def _run_passes(self, parts: list[Batch], scale: float) -> tuple[float, Counter[str]]:
        strategy, loss_sum = self.runner.strategy, 0.0
        metrics: Counter[str] = Counter()
        for batch, is_last in _mark_last(parts):
            with strategy.sync_context(is_last):
                loss = self.runner.model(batch)
                strategy.backward(loss * scale)
            loss_sum += float(loss.detach())
            metrics.update(strategy.unwrapped_model.metrics)
        return loss_sum, metrics

    def _halve(self, window: list[Batch], reason: torch.OutOfMemoryError) -> None:
        """Go on in micro-batches of half the size; DeviceError when there is nothing to halve."""
        strategy = self.runner.strategy
        most = max(map(microbatch.count_groups, window))
        if not strategy.supports_retry or self.parts >= most:
            code = "train.oom_single_sample" if strategy.supports_retry else "train.oom_no_retry"
            raise DeviceError(code, step=self._iter + 1) from reason
        reason.__traceback__ = None
        strategy.drop_gradients()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.parts = min(2 * self.parts, most)
        self.runner.logger.warning(
            "The device ran out of memory at step %d. From here on a micro-batch is processed in %d parts: "
            "the batch of a step, and so what is learned, stays the same; steps are slower. 'elysia plan' "
            "names a setting that avoids this.",
            self._iter + 1,
            self.parts,
        )


def count_labelled_tokens(batch: Batch) -> int:
    """Labelled tokens of a micro-batch."""
    return int((batch["labels"] != IGNORE).sum())


def count_units(batch: Batch) -> int:
    """What a micro-batch's loss is a sum over: preference pairs where it holds them, else labelled
    tokens."""
    return int(batch["pairs"]) if "pairs" in batch else count_labelled_tokens(batch)


def count_tokens(batch: Batch) -> int:
    """Tokens of a micro-batch, padding not counted."""
    mask = batch.get("attention_mask")
    return int(batch["input_ids"].numel() if mask is None else mask.sum())


def _mark_last(items: list[Batch]) -> Iterator[tuple[Batch, bool]]:
    for number, item in enumerate(items, 1):
        yield item, number == len(items)
