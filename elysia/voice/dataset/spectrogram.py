"""What VITS learns from: magnitudes of the short-time Fourier transform, and their mel bands.

Computed as in VITS's own code: reflected ends and no centring, so that frames = samples // hop.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from elysia.core.errors import VoiceError
from elysia.voice.vits.config import read_json

MEL_FLOOR = 1e-5  # before the logarithm


@dataclass(frozen=True)
class SpectrogramConfig:
    """`rate` is samples per second, `hop` samples from frame to frame, `window` samples of a frame."""

    rate: int = 22_050
    hop: int = 256
    window: int = 1024

    @property
    def bins(self) -> int:
        """Magnitudes per frame."""
        return self.window // 2 + 1

    def to_dict(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_model(cls, config: Any) -> SpectrogramConfig:
        """The one that a transformers VitsConfig expects."""
        hop = math.prod(config.upsample_rates)
        return cls(config.sampling_rate, hop, 2 * (config.spectrogram_bins - 1))

    @classmethod
    def from_folder(cls, folder: Path) -> SpectrogramConfig:
        """The one that the model in a folder expects, ours or Hugging Face's."""
        from transformers import VitsConfig

        return cls.from_model(VitsConfig(**read_json(folder / "config.json")))

    def validate(self) -> None:
        """Raise VoiceError for values that make no spectrogram."""
        if not (8000 <= self.rate <= 48_000 and 0 < self.hop <= self.window <= 16_384):
            raise VoiceError(
                "voice.bad_spectrogram", rate=self.rate, window=self.window, hop=self.hop
            )
        if self.window % 2 or (self.window - self.hop) % 2:
            raise VoiceError("voice.odd_spectrogram", window=self.window, hop=self.hop)


def stft_magnitudes(samples: Tensor, shape: SpectrogramConfig) -> Tensor:
    """(B, S) in float32, from -1 to 1 -> (B, bins, S // hop)."""
    side = (shape.window - shape.hop) // 2
    padded = F.pad(samples[:, None], (side, side), mode="reflect")[:, 0]
    hann = _hann_window(shape.window, str(samples.device))
    bins = torch.stft(
        padded, shape.window, shape.hop, shape.window, hann, center=False, return_complex=True
    )
    return (bins.real.square() + bins.imag.square() + 1e-6).sqrt()


def log_mel(
    spectrogram: Tensor, shape: SpectrogramConfig, bands: int, low: float, high: float
) -> Tensor:
    """(B, bins, F) -> logarithms of `bands` mel bands from `low` to `high` Hz (0: half the rate)."""
    bank = _mel_filters(shape, bands, low, high or shape.rate / 2, str(spectrogram.device))
    return (bank @ spectrogram).clamp(min=MEL_FLOOR).log()


@lru_cache(maxsize=8)
def _hann_window(size: int, device: str) -> Tensor:
    return torch.hann_window(size, device=device)


@lru_cache(maxsize=8)
def _mel_filters(
    shape: SpectrogramConfig, bands: int, low: float, high: float, device: str
) -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        num_frequency_bins=shape.bins, num_mel_filters=bands, min_frequency=low,
        max_frequency=high, sampling_rate=shape.rate, norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    return torch.from_numpy(bank.T.astype("float32")).to(device)
