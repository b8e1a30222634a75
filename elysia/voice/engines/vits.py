"""A VITS model of one's own: symbols to sound, a window of frames at a time.

A sentence's prior is made at once, which is quick; the decoder, which is slow, runs over windows
that overlap, so the first sound comes before the rest is made and the pieces join to the whole.
Runs in ONNX Runtime where the model was exported, else in torch; the noise is the same in both.
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

FIRST_WINDOW = 32  # frames decoded first: 0.37 s at 22.05 kHz
MAX_WINDOW = 64  # later windows: overlaps cost less; larger ones fall out of the caches
MAX_SYMBOL_SECONDS = 4.0  # seconds; what an untrained duration predictor may ask for has an end
MAX_SENTENCE_SECONDS = 90.0  # seconds
WARM_UP_TEXT = "好。"
BACKENDS = ("auto", "onnx", "torch")


class VitsEngine:
    """A model folder that speaks. Loaded at the first sentence; one sentence at a time."""

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
        parts: VitsBackend | None = None,
    ) -> None:
        """`parts` speak in place of the folder's weights: of a model that still learns."""
        if backend not in BACKENDS:
            raise VoiceError(f"There is no backend '{backend}', only {', '.join(BACKENDS)}.")
        self.card = VoiceConfig.read(folder)
        self._folder = folder
        self._number = self.card.resolve_speaker(speaker)
        self._noise = self.card.noise if noise is None else noise
        self._noise_duration = (
            self.card.noise_duration if noise_duration is None else noise_duration
        )
        self._threads = threads
        self._backend = backend
        self._seed = seed
        self._sandhi = sandhi
        self._parts: Any = parts
        self._lock = threading.Lock()

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[AudioChunk]:
        """Sound in pieces of half a second. VoiceError when the model cannot be loaded."""
        check_request(text, speed)
        for sentence in split_sentences(normalize_text(text)):
            cleaned = self.card.clean_text(sentence, sandhi=self._sandhi)
            if cleaned.unsaid:
                log.warning("This voice has no sounds for: %s", " ".join(cleaned.unsaid)[:80])
            ids = self.card.ids(cleaned.symbols)
            if not ids:
                continue
            with self._lock:
                for samples in self.samples(ids, speed):
                    loud = np.clip(samples, -1, 1) * 32767
                    yield AudioChunk(np.round(loud).astype("<i2").tobytes(), self.card.rate)

    def samples(
        self, ids: list[int], speed: float = 1.0, window: int = FIRST_WINDOW
    ) -> Iterator[np.ndarray[Any, Any]]:
        """Samples from -1 to 1 of symbols' ids, `window` frames first (0: all at once)."""
        parts = self._loaded()
        speaker = parts.speaker(self._number)
        latents = self._latents(parts, ids, speaker, speed)
        frames = latents.shape[2]
        start, window = 0, window or frames
        while start < frames:
            end = min(start + window, frames)
            first, last = (
                max(0, start - parts.receptive_field),
                min(frames, end + parts.receptive_field),
            )
            near = np.ascontiguousarray(latents[:, :, first:last])
            yield parts.decode(near, speaker, start - first, last - end)
            start, window = end, min(2 * window, max(window, MAX_WINDOW))

    def _latents(
        self, parts: Any, ids: list[int], speaker: Any, speed: float
    ) -> np.ndarray[Any, Any]:
        """The decoder's latents of a sentence, (1, C, F)."""
        random = np.random.default_rng(self._seed)
        draw = random.standard_normal((1, 2, len(ids)), dtype=np.float32) * self._noise_duration
        means, deviations, log_durations = parts.text(
            np.array([ids], dtype=np.int64), speaker, draw.astype(np.float32)
        )
        a_second = self.card.rate / self.card.hop
        longest = MAX_SYMBOL_SECONDS * a_second
        durations = np.exp(np.minimum(log_durations, np.log(longest))) / speed
        counts = np.ceil(np.nan_to_num(durations, nan=1.0)).astype(np.int64)
        frames = max(1, int(counts.sum()))
        if frames > MAX_SENTENCE_SECONDS * a_second:
            raise VoiceError(
                f"The model wants {frames / a_second:.0f} s for one sentence of {len(ids)} symbols; "
                f"at most {MAX_SENTENCE_SECONDS:.0f} s are spoken. It may be untrained."
            )
        spread = np.repeat(np.arange(len(ids)), counts)[:frames]
        means, deviations = means[spread].T[None], deviations[spread].T[None]
        noise = random.standard_normal(means.shape, dtype=np.float32)
        prior = means + noise * np.exp(deviations) * np.float32(self._noise)
        latents: np.ndarray[Any, Any] = parts.flow(
            np.ascontiguousarray(prior, dtype=np.float32), speaker
        )
        return latents

    def _loaded(self) -> Any:
        if self._parts is not None:
            return self._parts
        exported = all((self._folder / name).is_file() for name in GRAPH_FILES)
        runtime = importlib.util.find_spec("onnxruntime") is not None
        if self._backend == "onnx" and not (exported and runtime):
            raise VoiceError(
                f"{self._folder} has no ONNX files; import it with --onnx, or use backend = 'torch'."
                if not exported
                else "ONNX Runtime is not installed: pip install onnxruntime==1.31.1"
            )
        if self._backend != "torch" and exported and runtime:
            self._parts = OnnxBackend(self._folder, self._threads)
        else:
            from elysia.voice.vits.modules import load_backend

            self._parts = load_backend(self._folder)
        return self._parts

    def warm(self) -> None:
        """Load the model and say a word to nobody: the first sentence then finds all that it needs."""
        for _ in self.synthesize(WARM_UP_TEXT):
            pass

    def close(self) -> None:
        """Let go of the model; the next sentence loads it again."""
        with self._lock:
            self._parts = None


def build(settings: Mapping[str, Any], folder: Path) -> VitsEngine:
    """From a voice file: `model` (a folder, relative to the file), `speaker`, `noise`, …"""
    if "model" not in settings:
        raise VoiceError(
            "A voice of engine vits needs a model: the folder that 'voice import' wrote."
        )
    rest = {key: value for key, value in settings.items() if key != "model"}
    return VitsEngine((folder / settings["model"]).resolve(), **rest)
