"""Hooks of a voice's training: sentences spoken as it learns, and a plot of the losses."""

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
    """Speaks `texts` every `interval` steps and at the end, into TensorBoard and `vis_data/*.wav`.

    Leaves the training's random state as it was.
    """

    priority = "LOW"

    def __init__(self, interval: int, texts: list[str], start: str, speaker: str | int) -> None:
        self.interval, self.texts = interval, list(texts)
        self.start, self.speaker = Path(start), speaker

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        step = runner.iter + 1
        if (self.interval and step % self.interval == 0) or step == runner.max_iters:
            self.speak_samples(runner, step)

    def speak_samples(self, runner: Any, step: int) -> None:
        """Speak every text with the model as it is now; one that cannot be spoken yet is logged."""
        folder = Path(runner.log_dir) / "vis_data"
        with rng.preserve_rng_state():
            model = runner.strategy.unwrapped_model.speaking_copy()
            engine = VitsEngine(self.start, speaker=self.speaker, model=model)
            for number, text in enumerate(self.texts):
                try:
                    chunks = list(engine.synthesize(text))
                except VoiceError as error:  # the model has not learned durations yet
                    log.warning("Nothing to hear after step %d: %s", step, error)
                    continue
                write_wav(folder / f"step_{step}_{number}.wav", chunks)
                _log_audio(runner, f"listen/{number}", chunks, step)


def _log_audio(runner: Any, tag: str, chunks: list[AudioChunk], step: int) -> None:
    data = b"".join(chunk.data for chunk in chunks)
    if not data:
        return
    samples = torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / 32768)
    writer = runner.visualizer.get_backend("TensorboardVisBackend").experiment
    writer.add_audio(tag, samples[None], step, sample_rate=chunks[0].rate)


class LossCurvesHook(Hook):  # type: ignore[misc]
    """Plots every loss over the steps into `curves.png` at the end, with the parts before a resume."""

    priority = "LOWEST"

    def after_train(self, runner: Any) -> None:
        curves = read_curves(Path(runner.work_dir))
        if curves:
            plot_curves(curves, Path(runner.work_dir) / "curves.png")


def read_curves(work_dir: Path) -> dict[str, dict[int, float]]:
    """{loss: {step: value}} from the `scalars.json` files of a work dir."""
    curves: dict[str, dict[int, float]] = {}
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a killed run may leave half a line
            for name in CURVES:
                if name in row and "step" in row:
                    curves.setdefault(name, {})[int(row["step"])] = float(row[name])
    return curves


def plot_curves(curves: dict[str, dict[int, float]], target: Path) -> None:
    """Write a PNG with one panel per loss."""
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
