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
from elysia.voice.base import Pcm, check
from elysia.voice.sentences import split
from elysia.voice.text.explain import prepare
from elysia.voice.vits_card import VitsCard
from elysia.voice.vits_onnx import FILES, OnnxParts

if TYPE_CHECKING:
    from elysia.voice.vits_parts import Parts

log = logging.getLogger(__name__)

WINDOW = 32  # frames decoded first: 0.37 s at 22.05 kHz
LARGEST_WINDOW = 64  # later windows: overlaps cost less; larger ones fall out of the caches
LONGEST_SYMBOL = 4.0  # seconds; what an untrained duration predictor may ask for has an end
LONGEST_SENTENCE = 90.0  # seconds
WARMING = "好。"
BACKENDS = ("auto", "onnx", "torch")


class VitsVoice:
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
        parts: Parts | None = None,
    ) -> None:
        """`parts` speak in place of the folder's weights: of a model that still learns."""
        if backend not in BACKENDS:
            raise VoiceError(f"There is no backend '{backend}', only {', '.join(BACKENDS)}.")
        self.card = VitsCard.read(folder)
        self._folder = folder
        self._number = self.card.speaker_of(speaker)
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

    def synthesize(self, text: str, speed: float = 1.0) -> Iterator[Pcm]:
        """Sound in pieces of half a second. VoiceError when the model cannot be loaded."""
        check(text, speed)
        for sentence in split(prepare(text)):
            cleaned = self.card.symbols_of(sentence, sandhi=self._sandhi)
            if cleaned.unsaid:
                log.warning("This voice has no sounds for: %s", " ".join(cleaned.unsaid)[:80])
            ids = self.card.ids(cleaned.symbols)
            if not ids:
                continue
            with self._lock:
                for samples in self.samples(ids, speed):
                    loud = np.clip(samples, -1, 1) * 32767
                    yield Pcm(np.round(loud).astype("<i2").tobytes(), self.card.rate)

    def samples(
        self, ids: list[int], speed: float = 1.0, window: int = WINDOW
    ) -> Iterator[np.ndarray[Any, Any]]:
        """Samples from -1 to 1 of symbols' ids, `window` frames first (0: all at once)."""
        parts = self._loaded()
        speaker = parts.speaker(self._number)
        latents = self._latents(parts, ids, speaker, speed)
        frames = latents.shape[2]
        start, window = 0, window or frames
        while start < frames:
            end = min(start + window, frames)
            first, last = max(0, start - parts.reach), min(frames, end + parts.reach)
            near = np.ascontiguousarray(latents[:, :, first:last])
            yield parts.decode(near, speaker, start - first, last - end)
            start, window = end, min(2 * window, max(window, LARGEST_WINDOW))

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
        longest = LONGEST_SYMBOL * a_second
        durations = np.exp(np.minimum(log_durations, np.log(longest))) / speed
        counts = np.ceil(np.nan_to_num(durations, nan=1.0)).astype(np.int64)
        frames = max(1, int(counts.sum()))
        if frames > LONGEST_SENTENCE * a_second:
            raise VoiceError(
                f"The model wants {frames / a_second:.0f} s for one sentence of {len(ids)} symbols; "
                f"at most {LONGEST_SENTENCE:.0f} s are spoken. It may be untrained."
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
        exported = all((self._folder / name).is_file() for name in FILES)
        runtime = importlib.util.find_spec("onnxruntime") is not None
        if self._backend == "onnx" and not (exported and runtime):
            raise VoiceError(
                f"{self._folder} has no ONNX files; import it with --onnx, or use backend = 'torch'."
                if not exported
                else "ONNX Runtime is not installed: pip install onnxruntime==1.31.1"
            )
        if self._backend != "torch" and exported and runtime:
            self._parts = OnnxParts(self._folder, self._threads)
        else:
            from elysia.voice.vits_load import load

            self._parts = load(self._folder)
        return self._parts

    def warm(self) -> None:
        """Load the model and say a word to nobody: the first sentence then finds all that it needs."""
        for _ in self.synthesize(WARMING):
            pass

    def close(self) -> None:
        """Let go of the model; the next sentence loads it again."""
        with self._lock:
            self._parts = None


def build(settings: Mapping[str, Any], folder: Path) -> VitsVoice:
    """From a voice file: `model` (a folder, relative to the file), `speaker`, `noise`, …"""
    if "model" not in settings:
        raise VoiceError(
            "A voice of engine vits needs a model: the folder that 'voice import' wrote."
        )
    rest = {key: value for key, value in settings.items() if key != "model"}
    return VitsVoice((folder / settings["model"]).resolve(), **rest)
