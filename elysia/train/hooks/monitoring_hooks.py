"""What a run shows of itself: the first samples as the model sees them, speed and memory of each step, and
the loss curve at the end.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from mmengine.hooks import Hook

from elysia.data.tokenize.encoder import IGNORE
from elysia.train.engine.loop import count_labelled_tokens, count_tokens
from elysia.train.planner import flops
from elysia.train.planner.hardware import peak_flops

log = logging.getLogger(__name__)


class DatasetInfoHook(Hook):  # type: ignore[misc]
    """Logs the size of the data and, before the first step, the first `samples` samples: learned text is
    green, context plain."""

    def __init__(self, samples: int = 1) -> None:
        self.samples = samples

    def before_train(self, runner: Any) -> None:
        if runner.rank:
            return
        data = runner.train_dataloader.dataset
        tokens, labelled = int(data.tokens.lengths.sum()), int(data.tokens.labelled.sum())
        runner.logger.info(
            "%d rows in %d packs: %d tokens, %d of them learned (%.0f %%); %d steps an epoch, %d in all",
            len(data.tokens) // data.group_size, len(data), tokens, labelled,
            100 * labelled / max(tokens, 1), runner.train_loop.steps_per_epoch, runner.max_iters,
        )  # fmt: skip
        for index in range(min(self.samples, len(data.tokens))):
            ids, labels = data.tokens[index]
            text = colour_learned(ids, labels, data.tokenizer)
            runner.logger.info("Sample %d:\n%s", index + 1, text)


def colour_learned(ids: Any, labels: Any, tokenizer: Any) -> str:
    """The text of `ids`; runs of learned tokens in green.

    Runs are decoded whole: a character may be spread over several tokens.
    """
    text, start = "", 0
    for end in range(1, len(ids) + 1):
        learned = labels[start] != IGNORE
        if end < len(ids) and (labels[end] != IGNORE) == learned:
            continue
        run = tokenizer.decode([int(i) for i in ids[start:end]], skip_special_tokens=False)
        text += f"\x1b[32m{run}\x1b[0m" if learned else run
        start = end
    return text


class ThroughputHook(Hook):  # type: ignore[misc]
    """Tokens per second, padding, use of the hardware and memory, into the log and TensorBoard.

    Counts real tokens (no padding) of this process, times the number of processes. `mfu` is the share of the
    device's peak that the method needs, `hfu` the share of all operations that are executed; both for this
    process's device. `planner/flops.py` says what they count.
    """

    priority = "ABOVE_NORMAL"

    def before_train(self, runner: Any) -> None:
        model = runner.strategy.unwrapped_model
        self.work = None
        if model.is_reward_model:
            log.info("The throughput of a reward model is logged without mfu and hfu.")
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
        self.start = time.perf_counter()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        seconds = max(time.perf_counter() - self.start, 1e-9)
        loop, update = runner.train_loop, runner.message_hub.update_scalar
        slices = loop.sequence_parallel_size  # processes that each hold a slice of the same rows
        world = runner.world_size / slices
        update("train/tokens_per_s", sum(map(count_tokens, data_batch)) * world / seconds)
        labelled = sum(map(count_labelled_tokens, data_batch))
        update("train/labelled_per_s", labelled * world / seconds)
        if self.work is not None:
            device = runner.strategy.unwrapped_model.device_kind
            parts = [part for batch in data_batch for part in loop.split(batch)]
            loads = [flops.count_batch_load(part, device, self.segments) for part in parts]
            positions = sum(load.positions for load in loads)
            update("train/padding", 1 - sum(load.tokens for load in loads) / max(positions, 1))
            for name, count in (("mfu", flops.useful_flops), ("hfu", flops.executed_flops)):
                operations = sum(count(self.work, load) for load in loads) / slices
                update(f"train/{name}", operations / seconds / self.peak)
        if not torch.cuda.is_available():  # MMEngine itself logs the memory of a GPU
            update("train/rss_mb", psutil.Process().memory_info().rss / 2**20)


class LossCurveHook(Hook):  # type: ignore[misc]
    """Draws the loss curve at the end, over every resumed part of the run, into `loss_curve.png`; reads the
    `scalars.json` files that MMEngine left in the work dir."""

    priority = "LOWEST"

    def after_train(self, runner: Any) -> None:
        if runner.rank:
            return
        trained, heldout = read_scalars(Path(runner.work_dir))
        if trained:
            target = Path(runner.work_dir) / "loss_curve.png"
            draw_curves(trained, heldout, target)
            runner.logger.info("Loss curve: %s", target)


def read_scalars(work_dir: Path) -> tuple[dict[int, float], dict[int, float]]:
    """Training and held-out loss by step; a later part of the run overrides an earlier one."""
    trained: dict[int, float] = {}
    heldout: dict[int, float] = {}
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a killed run leaves half a line
            for name, curve in (("loss", trained), ("heldout_loss", heldout)):
                if name in row and "step" in row:
                    curve[int(row["step"])] = float(row[name])
    return trained, heldout


def draw_curves(trained: dict[int, float], heldout: dict[int, float], target: Path) -> None:
    """A PNG of both curves over steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for curve, label, style in ((trained, "training", "-"), (heldout, "held out", "o--")):
        if curve:
            steps = sorted(curve)
            axes.plot(steps, [curve[s] for s in steps], style, label=label, markersize=4)
    axes.set(xlabel="step", ylabel="loss per labelled token")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
