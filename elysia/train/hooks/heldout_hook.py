"""The loss on rows that are never trained on: before the first step, every `interval` steps, at the end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from mmengine.hooks import Hook

from elysia.train.data.dataset import PackedDataset
from elysia.train.distributed.strategy import all_reduce_sum
from elysia.train.engine import rng
from elysia.train.engine.loop import count_units


class HeldoutHook(Hook):  # type: ignore[misc]
    """Args: `dataset`, arguments of PackedDataset for the held-out rows; `collate`, as in training."""

    priority = "ABOVE_NORMAL"

    def __init__(self, interval: int, dataset: dict[str, Any], collate: Any) -> None:
        from mmengine.registry import FUNCTIONS

        self.interval = interval
        self.data = PackedDataset(**dataset)
        self.collate: Any = FUNCTIONS.get(collate["type"])
        self.collate_args = {k: v for k, v in collate.items() if k != "type"}

    def before_train(self, runner: Any) -> None:
        if runner.iter == 0:
            value = self._measure(runner, 0)
            runner.message_hub.update_info("first", {"heldout_loss": value})

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        done = runner.iter + 1
        if done % self.interval == 0 or done == runner.max_iters:
            self._measure(runner, done)

    def _measure(self, runner: Any, step: int) -> float:
        """Mean loss per labelled token or pair; every process takes its share of the packs."""
        model = runner.model
        model.eval()
        summed, units = 0.0, 0
        measured: Counter[str] = Counter()
        world, rank = runner.world_size, runner.rank
        rounds = -(-len(self.data) // world)
        with torch.no_grad(), rng.preserve_rng_state():
            for index in range(rounds):
                mine = index * world + rank
                # ZeRO-3 gathers weights together: who has no pack left runs a silent one.
                pack = self.data[mine if mine < len(self.data) else ~0]
                batch = self.collate([pack], **self.collate_args)
                summed += float(model(batch))
                units += count_units(batch)
                measured.update(runner.strategy.unwrapped_model.metrics)
        model.train()
        everywhere = max(all_reduce_sum(units), 1)
        value = all_reduce_sum(summed) / everywhere
        beside = {
            f"heldout_{name}": all_reduce_sum(sums) / everywhere for name, sums in measured.items()
        }
        runner.message_hub.update_scalar("heldout/loss", value)
        runner.visualizer.add_scalars({"heldout_loss": value, **beside}, step=step)
        rows = len(self.data.tokens) // self.data.each
        others = "".join(f", {name.removeprefix('heldout_')} {v:.4f}" for name, v in beside.items())
        runner.logger.info(
            "Held-out loss after step %d: %.4f (%d rows)%s", step, value, rows, others
        )
        return value
