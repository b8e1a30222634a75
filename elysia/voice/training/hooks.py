"""What a voice's training leaves to look at and to hear: sentences said as it learns, and curves."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook

from elysia.core.errors import VoiceError
from elysia.train.engine import rng
from elysia.voice.audio import write_wav
from elysia.voice.base import AudioChunk
from elysia.voice.engines.vits import VitsEngine

log = logging.getLogger(__name__)

CURVES = ("mel", "kl", "duration", "feature", "adversarial", "discriminator")


class SampleAudioHook(Hook):  # type: ignore[misc]
    """Says `texts` every `interval` steps and at the end, into TensorBoard and `vis_data/*.wav`.

    Without a trace in the training's randomness.
    """

    priority = "LOW"

    def __init__(self, interval: int, texts: list[str], start: str, speaker: str | int) -> None:
        self.interval, self.texts = interval, list(texts)
        self.start, self.speaker = Path(start), speaker

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        done = runner.iter + 1
        if (self.interval and done % self.interval == 0) or done == runner.max_iters:
            self.listen(runner, done)

    def listen(self, runner: Any, step: int) -> None:
        """Say every text as the model stands; one that cannot be said yet is logged."""
        folder = Path(runner.log_dir) / "vis_data"
        with rng.preserve_rng_state():
            parts = runner.strategy.unwrapped_model.parts()
            voice = VitsEngine(self.start, speaker=self.speaker, parts=parts)
            for number, text in enumerate(self.texts):
                try:
                    pieces = list(voice.synthesize(text))
                except VoiceError as error:  # of a model that has not learned how long sounds last
                    log.warning("Nothing to hear after step %d: %s", step, error)
                    continue
                write_wav(folder / f"step_{step}_{number}.wav", pieces)
                _log_audio(runner, f"listen/{number}", pieces, step)


def _log_audio(runner: Any, tag: str, pieces: list[AudioChunk], step: int) -> None:
    data = b"".join(piece.data for piece in pieces)
    if not data:
        return
    samples = torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / 32768)
    writer = runner.visualizer.get_backend("TensorboardVisBackend").experiment
    writer.add_audio(tag, samples[None], step, sample_rate=pieces[0].rate)


class LossCurvesHook(Hook):  # type: ignore[misc]
    """Draws every loss over steps at the end, over every resumed part of the run, into `curves.png`."""

    priority = "LOWEST"

    def after_train(self, runner: Any) -> None:
        curves = read_curves(Path(runner.work_dir))
        if curves:
            plot_curves(curves, Path(runner.work_dir) / "curves.png")


def read_curves(work_dir: Path) -> dict[str, dict[int, float]]:
    """Loss to step to value, of the `scalars.json` files in a work dir."""
    curves: dict[str, dict[int, float]] = {}
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a killed run leaves half a line
            for name in CURVES:
                if name in row and "step" in row:
                    curves.setdefault(name, {})[int(row["step"])] = float(row[name])
    return curves


def plot_curves(curves: dict[str, dict[int, float]], target: Path) -> None:
    """A PNG with a panel a loss."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6), layout="constrained")
    for panel, name in zip(axes.flat, CURVES, strict=True):
        steps = sorted(curves.get(name, {}))
        panel.plot(steps, [curves[name][step] for step in steps])
        panel.set(title=name, xlabel="step")
        panel.grid(alpha=0.3)
    figure.savefig(target, dpi=100)
    pyplot.close(figure)
