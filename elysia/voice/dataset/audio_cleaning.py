"""Decodes a recording and makes it even: one channel, one sample rate, trimmed, at one loudness.

The errors are clauses without the file's name ("it is silent"), because a report names the file.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysia.core.errors import VoiceError

Samples = NDArray[np.float32]

MAX_FILE_SECONDS = 600.0  # a longer file is not decoded
MAX_SAMPLES = 60_000_000  # of all channels
SILENCE_DBFS = -60.0  # a recording whose loudest part is below this is silence
SILENCE_BELOW_PEAK = (
    40.0  # dB; the ends of a recording are silence below its loudest part by this much
)
MARGIN_SECONDS = 0.05  # of silence that stays at either end
TARGET_LUFS = -23.0  # EBU R 128
LOUDNESS_BLOCK = 0.4  # seconds, of ITU-R BS.1770
MAX_PEAK = 10 ** (-1 / 20)  # -1 dBFS
CLIPPED_LEVEL = 0.999  # of full scale
MAX_CLIPPING = 1e-3  # share of samples in flat tops; a recording with more is refused


@dataclass(frozen=True)
class CleanAudio:
    """Clean samples and what the recording was like: its sample rate, its loudness (LUFS), the share of
    clipped samples, and the seconds of silence that were cut from its ends.
    """

    samples: Samples
    source_rate: int
    source_loudness: float
    clipped: float
    cut: float


def load_clean_audio(path: Path, rate: int) -> CleanAudio:
    """`path`, decoded and cleaned, at `rate`. Raises VoiceError when it cannot be used."""
    samples, source_rate = decode_file(path)
    clipped = clipped_share(samples)
    if clipped > MAX_CLIPPING:
        raise VoiceError("voice.clip_clipped", share=f"{clipped:.1%}")
    if source_rate != rate:
        samples = resample(samples, source_rate, rate)
    trimmed = trim_silence(samples, rate)
    if not len(trimmed):
        raise VoiceError("voice.clip_silent")
    loudness, even = normalize_loudness(trimmed, rate)
    return CleanAudio(even, source_rate, loudness, clipped, (len(samples) - len(trimmed)) / rate)


def decode_file(path: Path) -> tuple[Samples, int]:
    """Samples from -1 to 1 of one channel (the mean of all), and the sample rate."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.frames > MAX_FILE_SECONDS * file.samplerate:
                raise VoiceError("voice.clip_file_too_long", limit=f"{MAX_FILE_SECONDS:.0f}")
            if file.frames * file.channels > MAX_SAMPLES:
                raise VoiceError(
                    "voice.clip_too_many_samples", channels=file.channels, frames=file.frames
                )
            data = file.read(file.frames, dtype="float32", always_2d=True)
            rate: int = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        reason = str(error).split(": ")[-1].strip(". ").splitlines()[0][:100]
        raise VoiceError("voice.clip_undecodable", reason=reason) from None
    if not len(data):
        raise VoiceError("voice.clip_empty")
    if not np.isfinite(data).all():
        raise VoiceError("voice.clip_not_finite")
    mixed: Samples = data.mean(axis=1, dtype=np.float32)
    return mixed, rate


def clipped_share(samples: Samples) -> float:
    """Share of samples in runs of three or more at full scale: flat tops.

    >>> clipped_share(np.array([0, 1, 1, 1, 0, -1, 0, 0], dtype=np.float32))
    0.375
    """
    full = np.abs(samples) >= CLIPPED_LEVEL
    edges = np.flatnonzero(np.diff(np.concatenate([[0], full.astype(np.int8), [0]])))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= 3].sum() / max(1, len(samples)))


def resample(samples: Samples, source_rate: int, rate: int) -> Samples:
    """At another sample rate, with a low-pass where it is lower."""
    from scipy.signal import resample_poly

    common = gcd(source_rate, rate)
    resampled: Samples = resample_poly(samples, rate // common, source_rate // common)
    return resampled.astype(np.float32)


def trim_silence(samples: Samples, rate: int) -> Samples:
    """Without the silence at both ends; empty when all of it is silence."""
    size = max(1, rate // 50)  # levels are taken over 20 ms
    whole = len(samples) // size * size
    if not whole:
        return samples[:0]
    power = np.square(samples[:whole], dtype=np.float64).reshape(-1, size).mean(axis=1)
    levels = 10 * np.log10(power + 1e-12)
    if levels.max() < SILENCE_DBFS:
        return samples[:0]
    loud = np.flatnonzero(levels > max(levels.max() - SILENCE_BELOW_PEAK, SILENCE_DBFS))
    margin = int(MARGIN_SECONDS * rate)
    first, last = loud[0] * size - margin, (loud[-1] + 1) * size + margin
    return samples[max(0, first) : last]


def normalize_loudness(samples: Samples, rate: int) -> tuple[float, Samples]:
    """The loudness (LUFS), and the samples at TARGET_LUFS, or as close as MAX_PEAK allows."""
    import pyloudnorm

    if len(samples) <= LOUDNESS_BLOCK * rate:
        raise VoiceError("voice.clip_too_short", seconds=f"{len(samples) / rate:.2f}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meter = pyloudnorm.Meter(rate, block_size=LOUDNESS_BLOCK)
        loudness = float(meter.integrated_loudness(samples))
    if not np.isfinite(loudness):
        raise VoiceError("voice.clip_silent")
    gain = min(10 ** ((TARGET_LUFS - loudness) / 20), MAX_PEAK / float(np.abs(samples).max()))
    return loudness, (samples * np.float32(gain)).astype(np.float32)


def to_pcm16(samples: Samples) -> bytes:
    """Samples from -1 to 1 as 16-bit little-endian."""
    scaled: NDArray[Any] = np.clip(np.round(samples * 32767), -32768, 32767)
    return scaled.astype("<i2").tobytes()
