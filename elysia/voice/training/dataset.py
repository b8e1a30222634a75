"""The prepared clips as a torch dataset: symbol ids, spectrogram and samples, collated into batches."""

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
    """A clip: ids (T), spectrogram (bins, F), samples (F * hop)."""

    ids: Tensor
    spectrogram: Tensor
    samples: Tensor
    speaker: int


class ClipDataset:
    """The clips of a prepared folder, in the symbols of a start folder's model.

    Args:
        data: the folder that `voice prepare` wrote.
        start: the start folder.
        speaker: name or number of a speaker of the model.
        segment: the least number of frames that a clip must have.
    """

    def __init__(self, data: str, start: str, speaker: str | int = 0, segment: int = 32) -> None:
        self.folder = Path(data)
        self.manifest = ClipManifest.read(self.folder)
        self.config = VoiceConfig.read(Path(start))
        self.speaker = self.config.resolve_speaker(speaker)
        self.ids = [self._ids(clip, segment) for clip in self.manifest.clips]

    def _ids(self, clip: AudioClip, segment: int) -> list[int]:
        """The ids of a clip's text. Raises VoiceError when it cannot be trained on."""
        ids = self.config.encode_symbols(self.config.clean_text(normalize_text(clip.text)).symbols)
        where = self.folder / clip.file
        if not ids:
            raise VoiceError("voice.clip_without_symbols", path=where)
        if clip.frames < len(ids):
            raise VoiceError(
                "voice.clip_more_symbols", path=where, frames=clip.frames, symbols=len(ids)
            )
        if clip.frames < segment:
            raise VoiceError(
                "voice.clip_below_segment", path=where, frames=clip.frames, segment=segment
            )
        return ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> ClipItem:
        """Clip `index`. A negative one is clip `~index`: the sampler fills the last batch of an epoch so."""
        number = index if index >= 0 else ~index
        clip, shape = self.manifest.clips[number], self.manifest.shape
        samples = read_samples(self.folder / clip.file, shape.rate)
        spectrogram = read_spectrogram(self.folder / clip.spectrogram, shape.bins)
        frames = min(clip.frames, spectrogram.shape[1], len(samples) // shape.hop)
        if frames < clip.frames:
            raise VoiceError("voice.clip_truncated", path=self.folder / clip.file)
        return ClipItem(
            torch.tensor(self.ids[number]),
            torch.from_numpy(spectrogram[:, :frames]),
            torch.from_numpy(samples[: frames * shape.hop]),
            self.speaker,
        )


def read_samples(path: Path, rate: int) -> NDArray[np.float32]:
    """The samples of a 16-bit mono WAV file, from -1 to 1. Raises VoiceError for any other file."""
    try:
        with wave.open(str(path), "rb") as file:
            kind = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise VoiceError("voice.clip_unreadable", path=path, error=str(error)) from None
    if kind != (1, 2, rate):
        raise VoiceError("voice.clip_other_format", path=path, rate=rate)
    samples: NDArray[np.float32] = np.frombuffer(data, "<i2").astype(np.float32)
    samples /= 32768
    return samples


def read_spectrogram(path: Path, bins: int) -> NDArray[np.float32]:
    """A prepared spectrogram (bins, F). Raises VoiceError when it is damaged or of another shape."""
    try:
        spectrogram: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VoiceError("voice.clip_unreadable", path=path, error=str(error)) from None
    if spectrogram.ndim != 2 or spectrogram.shape[0] != bins or spectrogram.dtype != np.float32:
        raise VoiceError("voice.clip_other_bins", path=path, bins=bins)
    return spectrogram


def collate(items: Sequence[ClipItem]) -> ClipBatch:
    """Items of different lengths as one batch, padded with zeros."""
    return ClipBatch(
        ids=pad_sequence([item.ids for item in items], batch_first=True),
        symbols=torch.tensor([len(item.ids) for item in items]),
        spectrogram=pad_sequence([item.spectrogram.T for item in items], True).transpose(1, 2),
        frames=torch.tensor([item.spectrogram.shape[1] for item in items]),
        samples=pad_sequence([item.samples for item in items], batch_first=True),
        speakers=torch.tensor([item.speaker for item in items]),
    )
