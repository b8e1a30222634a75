"""Saves the run every `interval` steps, at the step that a measuring hook found best, and at its end; removes
all but the newest few and the best.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from elysia.core.run_card import RunCard
from elysia.train import checkpoint
from elysia.train.distributed.comm import barrier


class CheckpointHook(Hook):  # type: ignore[misc]
    """Args: `interval` in steps (0: only at the end); `keep`, how many checkpoints stay (below 1:
    all); `card`, the run card as a dict, completed with the latest metrics at each save."""

    priority = "VERY_LOW"

    def __init__(self, interval: int, keep: int, card: dict[str, Any]) -> None:
        self.interval, self.keep = interval, keep
        # MMEngine's config made ConfigDicts of it, which a checkpoint may not hold.
        self.card: dict[str, Any] = json.loads(json.dumps(card))

    def before_train(self, runner: Any) -> None:
        """Remove what a killed run left half-written, and another run's best."""
        if runner.rank == 0:
            folder = Path(runner.work_dir)
            for stale in [*folder.glob(".iter_*.writing"), *folder.glob(".iter_*.removing")]:
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            if not runner.train_loop.best_step:  # a resumed run has set it by now
                (folder / checkpoint.BEST).unlink(missing_ok=True)
            RunCard.from_dict(self.card).write(folder)
        barrier()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        step = runner.iter + 1
        is_last = step == runner.max_iters or runner.train_loop.stop_training
        is_due = self.interval and step % self.interval == 0
        is_best = runner.train_loop.best_step == step
        if not (is_due or is_best or is_last):
            return
        path = Path(runner.work_dir) / f"iter_{step}.pth"
        card = self.card | {"metrics": self.card.get("metrics", {}) | collect_metrics(runner)}
        if runner.train_loop.stop_reason:
            card["stopped"] = runner.train_loop.stop_reason
        runner.strategy.save(path, runner.train_loop.progress(), card)
        if runner.rank == 0:
            checkpoint.write_pointer(path)
            if is_best:
                checkpoint.write_pointer(path, checkpoint.BEST)
            checkpoint.prune(path.parent, self.keep)
            RunCard.from_dict(card).write(path.parent)
        barrier()
        runner.logger.info("Saved %s", path)


def collect_metrics(runner: Any) -> dict[str, float]:
    """The latest scalars worth storing beside the weights."""
    scalars, info = runner.message_hub.log_scalars, runner.message_hub.runtime_info
    names = {"train/loss": "loss", "heldout/loss": "heldout_loss"}
    metrics = {short: scalars[name].current() for name, short in names.items() if name in scalars}
    metrics |= info.get("plan") or {}
    metrics |= {f"persona_{name}": value for name, value in (info.get("persona") or {}).items()}
    if runner.train_loop.best_step:
        metrics["best_step"] = runner.train_loop.best_step
    metrics |= {f"first_{name}": value for name, value in (info.get("first") or {}).items()}
    return {name: float(value) for name, value in metrics.items()} | {"steps": runner.iter + 1}
