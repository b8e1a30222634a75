"""A VITS model: the symbols of a sentence become audio, one window of frames at a time.

The prior of a sentence is computed at once, which is fast. The decoder, which is slow, runs over windows
that overlap by its receptive field, so the first audio comes before the rest is made and the chunks join
without a seam. Runs in ONNX Runtime if the model was exported, else in torch; the noise is the same.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elysia.core.errors import VoiceError
from elysia.voice.base import AudioChunk, check_request
from elysia.voice.frontend.pipeline import normalize_text
from elysia.voice.sentence_splitter import split_sentences
from elysia.voice.vits.config import VoiceConfig
from elysia.voice.vits.onnx_runtime import GRAPH_FILES, OnnxBackend

if TYPE_CHECKING:
    from elysia.voice.vits.modules import VitsBackend

log = logging.getLogger(__name__)

FIRST_WINDOW = 32  # frames: 0.37 s at 22.05 kHz
MAX_WINDOW = 64  # later windows: less overlap to compute; larger ones fall out of the CPU's caches
MAX_SYMBOL_SECONDS = 4.0  # bounds what an untrained duration predictor may ask for
MAX_SENTENCE_SECONDS = 90.0
WARM_UP_TEXT = "好。"
BACKENDS = ("auto", "onnx", "torch")


class VitsEngine:
    """A model folder that speaks one sentence at a time; loaded at the first one."""

    def __init__(
        self,
        folder: Path,
        *,
        speaker: str | int = 0,
        noise: float | None = None,
        noise_duration: float | None = None,
        threads: int = 1,
        backend: str = "auto",
        seed: int = 0,
        sandhi: bool = True,
        model: VitsBackend | None = None,
    ) -> None:
        """`model` speaks in place of the folder's weights: that of a training run, for example.

        `noise` and `noise_duration` scale the noise of the prior and of the durations; None takes the
        model's own.
        """
        if backend not in BACKENDS:
            raise VoiceError("voice.unknown_backend", backend=backend, known=BACKENDS)
        self.config = VoiceConfig.read(folder)
        self._folder = folder
        self._speaker = self.config.resolve_speaker(speaker)
        self._noise = self.config.noise if noise is None else noise
        self._noise_duration = (
            self.config.noise_duration if noise_duration is None else noise_duration
        )
        self._threads = threads
        self._backend = backend
        self._seed = seed
        self._sandhi = sandhi
        self._model = model
        self._lock = threading.Lock()

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """Audio in chunks of half a second. Raises VoiceError when the model cannot be loaded."""
        check_request(text, speed)
        for sentence in split_sentences(normalize_text(text)):
            cleaned = self.config.clean_text(sentence, sandhi=self._sandhi)
            if cleaned.unsaid:
                log.warning("This voice has no sounds for: %s", " ".join(cleaned.unsaid)[:80])
            ids = self.config.encode_symbols(cleaned.symbols)
            if not ids:
                continue
            with self._lock:
                for samples in self.samples(ids, speed):
                    scaled = np.clip(samples, -1, 1) * 32767
                    yield AudioChunk(np.round(scaled).astype("<i2").tobytes(), self.config.rate)

    def samples(
        self, ids: list[int], speed: float = 1.0, window: int = FIRST_WINDOW
    ) -> Iterator[np.ndarray[Any, Any]]:
        """Samples from -1 to 1 of symbol ids, in windows of `window` frames at first (0: all at once)."""
        model = self._load()
        speaker = model.speaker(self._speaker)
        latents = self._make_latents(model, ids, speaker, speed)
        frames = latents.shape[2]
        start, window = 0, window or frames
        while start < frames:
            end = min(start + window, frames)
            # The window with its context; at the ends of the sentence there is none.
            first = max(0, start - model.receptive_field)
            last = min(frames, end + model.receptive_field)
            near = np.ascontiguousarray(latents[:, :, first:last])
            yield model.decode(near, speaker, start - first, last - end)
            start, window = end, min(2 * window, max(window, MAX_WINDOW))

    def _make_latents(
        self, model: VitsBackend, ids: list[int], speaker: Any, speed: float
    ) -> np.ndarray[Any, Any]:
        """The decoder's latents of a sentence, (1, C, F)."""
        random = np.random.default_rng(self._seed)
        noise = random.standard_normal((1, 2, len(ids)), dtype=np.float32) * self._noise_duration
        means, deviations, log_durations = model.text(
            np.array([ids], dtype=np.int64), speaker, noise.astype(np.float32)
        )
        frame_rate = self.config.rate / self.config.hop
        longest = MAX_SYMBOL_SECONDS * frame_rate
        durations = np.exp(np.minimum(log_durations, np.log(longest))) / speed
        counts = np.ceil(np.nan_to_num(durations, nan=1.0)).astype(np.int64)
        frames = max(1, int(counts.sum()))
        if frames > MAX_SENTENCE_SECONDS * frame_rate:
            raise VoiceError(
                "voice.sentence_too_long", seconds=f"{frames / frame_rate:.0f}", symbols=len(ids),
                limit=f"{MAX_SENTENCE_SECONDS:.0f}",
            )  # fmt: skip
        symbol = np.repeat(np.arange(len(ids)), counts)[:frames]  # of each frame
        means, deviations = means[symbol].T[None], deviations[symbol].T[None]
        noise = random.standard_normal(means.shape, dtype=np.float32)
        prior = means + noise * np.exp(deviations) * np.float32(self._noise)
        return model.flow(np.ascontiguousarray(prior, dtype=np.float32), speaker)

    def _load(self) -> VitsBackend:
        if self._model is not None:
            return self._model
        exported = all((self._folder / name).is_file() for name in GRAPH_FILES)
        installed = importlib.util.find_spec("onnxruntime") is not None
        if self._backend == "onnx" and not exported:
            raise VoiceError("voice.no_onnx_files", folder=self._folder)
        if self._backend == "onnx" and not installed:
            raise VoiceError("voice.onnx_missing")
        if self._backend != "torch" and exported and installed:
            self._model = OnnxBackend(self._folder, self._threads)
        else:
            from elysia.voice.vits.modules import load_backend

            self._model = load_backend(self._folder)
        return self._model

    def warm(self) -> None:
        """Load the model and synthesize a word, so that the first sentence waits for nothing."""
        for _ in self.synthesize(WARM_UP_TEXT):
            pass

    def close(self) -> None:
        """Release the model; the next sentence loads it again."""
        with self._lock:
            self._model = None


def build(settings: Mapping[str, Any], folder: Path) -> VitsEngine:
    """From a voice file: `model` (a folder, relative to the file), `speaker`, `noise`, …"""
    if "model" not in settings:
        raise VoiceError("voice.vits_no_model")
    options = {key: value for key, value in settings.items() if key != "model"}
    return VitsEngine((folder / settings["model"]).resolve(), **options)
