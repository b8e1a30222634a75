"""Draws the loss curve at the end, over every resumed part of the run, into `loss_curve.png`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook


class LossCurveHook(Hook):  # type: ignore[misc]
    """Reads the `scalars.json` files that MMEngine left in the work dir."""

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
