"""A recording becomes clean sound: decoded, one channel, one rate, trimmed, evenly loud.

Knows nothing of texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysia.core.errors import VoiceError

Samples = NDArray[np.float32]

MAX_FILE_SECONDS = 600.0  # seconds that are decoded at all
MAX_SAMPLES = 60_000_000  # of all channels
SILENCE_DBFS = -60.0  # dBFS of the loudest part, below which a recording is silence
SILENCE_BELOW_PEAK = 40.0  # dB under the loudest part, from where on the ends are silence
MARGIN_SECONDS = 0.05  # seconds kept on either side
TARGET_LUFS = -23.0  # LUFS, EBU R 128
MAX_PEAK = 10 ** (-1 / 20)  # highest sample, -1 dBFS
CLIPPED_LEVEL = 0.999  # of full scale
MAX_CLIPPING = 1e-3  # share of samples in flat tops, above which a recording is refused


@dataclass(frozen=True)
class CleanAudio:
    """Clean sound, and what was found on the way: rate and loudness (LUFS) as it came, share of
    clipped samples, seconds of silence cut from the ends."""

    samples: Samples
    came_rate: int
    came_loudness: float
    clipped: float
    cut: float


def load_clean_audio(path: Path, rate: int) -> CleanAudio:
    """`path`, decoded and made even, at `rate`. VoiceError, a clause without the file's name, when it
    cannot be used.
    """
    samples, came = decode_file(path)
    clipped = clipped_share(samples)
    if clipped > MAX_CLIPPING:
        raise VoiceError(f"it is clipped: {clipped:.1%} of its samples lie in flat tops")
    if came != rate:
        samples = resample(samples, came, rate)
    trimmed = trim_silence(samples, rate)
    if not len(trimmed):
        raise VoiceError("it is silent")
    loudness, even = normalize_loudness(trimmed, rate)
    return CleanAudio(even, came, loudness, clipped, (len(samples) - len(trimmed)) / rate)


def decode_file(path: Path) -> tuple[Samples, int]:
    """Samples from -1 to 1 of one channel (the mean of all), and their rate."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.frames > MAX_FILE_SECONDS * file.samplerate:
                raise VoiceError(
                    f"it is longer than {MAX_FILE_SECONDS:.0f} s; cut it into sentences"
                )
            if file.frames * file.channels > MAX_SAMPLES:
                raise VoiceError(
                    f"it has {file.channels} channels of {file.frames} samples: too many"
                )
            data = file.read(file.frames, dtype="float32", always_2d=True)
            rate: int = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        reason = str(error).split(": ")[-1].strip(". ").splitlines()[0][:100]
        raise VoiceError(f"it cannot be decoded ({reason})") from None
    if not len(data):
        raise VoiceError("it holds no sound")
    if not np.isfinite(data).all():
        raise VoiceError("it holds samples that are no numbers")
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


def resample(samples: Samples, came: int, rate: int) -> Samples:
    """At another rate, low-passed where it shrinks."""
    from scipy.signal import resample_poly

    common = gcd(came, rate)
    found: Samples = resample_poly(samples, rate // common, came // common).astype(np.float32)
    return found


def trim_silence(samples: Samples, rate: int) -> Samples:
    """Without the silence at both ends; empty when all of it is silence."""
    size = max(1, rate // 50)
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
    """Its loudness (LUFS), and the same at LOUDNESS, or as near as no sample exceeds PEAK."""
    import warnings

    import pyloudnorm

    block = 0.4
    if len(samples) <= block * rate:
        raise VoiceError(f"it sounds for {len(samples) / rate:.2f} s: too short to be one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        came = float(pyloudnorm.Meter(rate, block_size=block).integrated_loudness(samples))
    if not np.isfinite(came):
        raise VoiceError("it is silent")
    gain = min(10 ** ((TARGET_LUFS - came) / 20), MAX_PEAK / float(np.abs(samples).max()))
    return came, (samples * np.float32(gain)).astype(np.float32)


def to_pcm16(samples: Samples) -> bytes:
    """Samples from -1 to 1 as 16-bit little-endian."""
    whole: NDArray[Any] = np.clip(np.round(samples * 32767), -32768, 32767)
    return whole.astype("<i2").tobytes()
