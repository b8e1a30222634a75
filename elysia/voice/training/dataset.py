"""Prepared clips as training takes them: symbols, spectrogram and samples, in batches.

Knows nothing of recordings as they came, or of losses.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from elysia.core.errors import VoiceError
from elysia.voice.dataset.manifest import AudioClip, ClipManifest
from elysia.voice.frontend.pipeline import normalize_text
from elysia.voice.training.generator import ClipBatch
from elysia.voice.vits.config import VoiceConfig


@dataclass(frozen=True)
class ClipItem:
    """One clip: ids (T), spectrogram (bins, F), samples (F * hop)."""

    ids: Tensor
    spectrogram: Tensor
    samples: Tensor
    speaker: int


class ClipDataset:
    """The clips of a prepared folder, in the symbols of a start folder's card.

    Args:
        data: what `voice prepare` wrote.
        start: the start folder.
        speaker: a name or number of the card's.
        segment: frames that a clip must have at least.
    """

    def __init__(self, data: str, start: str, speaker: str | int = 0, segment: int = 32) -> None:
        self.folder = Path(data)
        self.manifest = ClipManifest.read(self.folder)
        self.card = VoiceConfig.read(Path(start))
        self.speaker = self.card.resolve_speaker(speaker)
        self.ids = [self._ids(clip, segment) for clip in self.manifest.clips]

    def _ids(self, clip: AudioClip, segment: int) -> list[int]:
        """The clip's symbols; VoiceError when it cannot be learned from."""
        ids = self.card.ids(self.card.clean_text(normalize_text(clip.text)).symbols)
        where = self.folder / clip.file
        if not ids:
            raise VoiceError(f"{where}: nothing of its text can be said in the model's symbols.")
        if clip.frames < len(ids):
            raise VoiceError(
                f"{where} has {clip.frames} frames for {len(ids)} symbols: its text is longer than its "
                "sound. Prepare the recordings again with --model START or --cleaner of this config."
            )
        if clip.frames < segment:
            raise VoiceError(f"{where} has {clip.frames} frames: segment_frames wants {segment}.")
        return ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> ClipItem:
        """Clip `index`; below 0 it is clip `~index`, which fills up an epoch's last batch."""
        number = index if index >= 0 else ~index
        clip, shape = self.manifest.clips[number], self.manifest.shape
        samples = read_samples(self.folder / clip.file, shape.rate)
        spectrogram = read_spectrogram(self.folder / clip.spectrogram, shape.bins)
        frames = min(clip.frames, spectrogram.shape[1], len(samples) // shape.hop)
        if frames < clip.frames:
            raise VoiceError(
                f"{self.folder / clip.file} is cut short: prepare the recordings again."
            )
        return ClipItem(
            torch.tensor(self.ids[number]),
            torch.from_numpy(spectrogram[:, :frames]),
            torch.from_numpy(samples[: frames * shape.hop]),
            self.speaker,
        )


def read_samples(path: Path, rate: int) -> NDArray[np.float32]:
    """A 16-bit mono WAV file from -1 to 1. VoiceError when it is none, or of another rate."""
    try:
        with wave.open(str(path), "rb") as file:
            kind = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise VoiceError(
            f"{path} cannot be read ({error}): prepare the recordings again."
        ) from None
    if kind != (1, 2, rate):
        raise VoiceError(
            f"{path} is no 16-bit mono sound at {rate} Hz: prepare the recordings again."
        )
    samples: NDArray[np.float32] = np.frombuffer(data, "<i2").astype(np.float32)
    samples /= 32768
    return samples


def read_spectrogram(path: Path, bins: int) -> NDArray[np.float32]:
    """A cached spectrogram (bins, F). VoiceError when it is damaged or of another shape."""
    try:
        found: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VoiceError(
            f"{path} cannot be read ({error}): prepare the recordings again."
        ) from None
    if found.ndim != 2 or found.shape[0] != bins or found.dtype != np.float32:
        raise VoiceError(f"{path} is no spectrogram of {bins} bins: prepare the recordings again.")
    return found


def collate(items: Sequence[ClipItem]) -> ClipBatch:
    """Items of different lengths as one batch, zeros behind each."""
    return ClipBatch(
        ids=pad_sequence([item.ids for item in items], batch_first=True),
        symbols=torch.tensor([len(item.ids) for item in items]),
        spectrogram=pad_sequence([item.spectrogram.T for item in items], True).transpose(1, 2),
        frames=torch.tensor([item.spectrogram.shape[1] for item in items]),
        samples=pad_sequence([item.samples for item in items], batch_first=True),
        speakers=torch.tensor([item.speaker for item in items]),
    )
