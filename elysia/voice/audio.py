"""Sound as files: WAV written whole or not at all, and one rate made into another.

Knows nothing of voices.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from elysia.core.files import staged_file
from elysia.voice.base import Pcm


def wav(pieces: Iterable[Pcm], rate: int | None = None) -> bytes:
    """A 16-bit mono WAV file of all pieces, at `rate` or the first piece's."""
    buffer = io.BytesIO()
    _write(buffer, pieces, rate)
    return buffer.getvalue()


def write_wav(path: str | Path, pieces: Iterable[Pcm]) -> float:
    """Write a WAV file as the pieces come, whole or not at all; returns its seconds."""
    with staged_file(path) as stream:
        return _write(stream, pieces)


def _write(stream: BinaryIO, pieces: Iterable[Pcm], rate: int | None = None) -> float:
    frames = 0
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate or 22_050)  # of a file without sound; the first piece may change it
        for piece in pieces:
            if not frames:
                rate = rate or piece.rate
                file.setframerate(rate)
            data = resampled(piece, rate or piece.rate).data
            frames += len(data) // 2
            file.writeframesraw(data)
    return frames / (rate or 22_050)


def resampled(piece: Pcm, rate: int) -> Pcm:
    """`piece` at another rate, by a windowed sinc of 32 zero crossings, low-passed where it shrinks."""
    if piece.rate == rate or not piece.data:
        return Pcm(piece.data, rate)
    import numpy as np

    samples = np.frombuffer(piece.data, "<i2").astype(np.float64)
    count = max(1, round(len(samples) * rate / piece.rate))
    cut = min(1.0, rate / piece.rate)
    reach = int(np.ceil(16 / cut))
    padded = np.pad(samples, reach)
    out = np.empty(count)
    for start in range(0, count, 65536):  # in bounds, however long the piece
        at = np.arange(start, min(count, start + 65536)) * (piece.rate / rate)
        first = np.floor(at).astype(np.int64)
        offsets = np.arange(1 - reach, reach + 1)
        distance = offsets[None, :] - (at - first)[:, None]
        window = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / reach, -1, 1))
        weights = cut * np.sinc(cut * distance) * window
        near = np.clip(first[:, None] + offsets[None, :] + reach, 0, len(padded) - 1)
        out[start : start + len(at)] = (padded[near] * weights).sum(axis=1)
    return Pcm(np.clip(np.round(out), -32768, 32767).astype("<i2").tobytes(), rate)
