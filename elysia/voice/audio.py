"""Sound as files: WAV written whole or not at all, and one rate made into another.

Knows nothing of voices.
"""

from __future__ import annotations

import io
import math
import sys
import wave
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from elysia.core.files import staged_file
from elysia.voice.base import AudioChunk


def encode_wav(pieces: Iterable[AudioChunk], rate: int | None = None) -> bytes:
    """A 16-bit mono WAV file of all pieces, at `rate` or the first piece's."""
    buffer = io.BytesIO()
    _write_frames(buffer, pieces, rate)
    return buffer.getvalue()


def write_wav(path: str | Path, pieces: Iterable[AudioChunk]) -> float:
    """Write a WAV file as the pieces come, whole or not at all; returns its seconds."""
    with staged_file(path) as stream:
        return _write_frames(stream, pieces)


def _write_frames(stream: BinaryIO, pieces: Iterable[AudioChunk], rate: int | None = None) -> float:
    frames, came = 0, 0
    mould: StreamResampler | None = None
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate or 22_050)  # of a file without sound; the first piece may change it
        for piece in pieces:
            if mould is None:
                rate = rate or piece.rate
                file.setframerate(rate)
                mould, came = StreamResampler(piece.rate, rate), piece.rate
            if piece.rate != came:
                piece = resample_chunk(piece, came)
            data = mould.push(piece.data)
            frames += len(data) // 2
            file.writeframesraw(data)
        rest = mould.flush() if mould else b""
        frames += len(rest) // 2
        file.writeframesraw(rest)
    return frames / (rate or 22_050)


def resample_chunk(piece: AudioChunk, rate: int) -> AudioChunk:
    """A whole sound at another rate."""
    mould = StreamResampler(piece.rate, rate)
    return AudioChunk(mould.push(piece.data) + mould.flush(), rate)


class StreamResampler:
    """Sound that comes in pieces at another rate, with no seam where pieces meet: a windowed sinc of 32
    zero crossings, low-passed where the rate shrinks.
    """

    def __init__(self, came: int, rate: int) -> None:
        self._step = came / rate
        self._cut = min(1.0, rate / came)
        self._reach = math.ceil(16 / self._cut)
        # Samples that an output may still need, from the index `_first` on; before 0 is silence.
        self._kept = array("h", bytes(2 * self._reach))
        self._first = -self._reach
        self._came = self._made = 0

    def push(self, data: bytes) -> bytes:
        """What can be made now that `data` (16-bit samples) has come."""
        if self._step == 1:
            return data
        self._add(data)
        # An output needs `reach` samples behind it.
        ready = math.ceil((self._came - self._reach) / self._step)
        return self._until(ready)

    def flush(self) -> bytes:
        """What is left, once no more comes."""
        if self._step == 1 or not self._came:
            return b""
        count = max(1, round(self._came / self._step))
        came = self._came
        self._add(bytes(2 * (self._reach + math.ceil(self._step) + 1)))
        self._came = came
        return self._until(count)

    def _add(self, data: bytes) -> None:
        piece = array("h", data)
        if sys.byteorder == "big":
            piece.byteswap()
        self._kept += piece
        self._came += len(piece)

    def _until(self, count: int) -> bytes:
        import numpy as np

        samples = np.asarray(self._kept, dtype=np.float64)
        offsets = np.arange(1 - self._reach, self._reach + 1)
        made = []
        for start in range(self._made, count, 65536):  # in bounds, however long the piece
            at = np.arange(start, min(count, start + 65536)) * self._step
            first = np.floor(at).astype(np.int64)
            distance = offsets[None, :] - (at - first)[:, None]
            window = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / self._reach, -1, 1))
            weights = self._cut * np.sinc(self._cut * distance) * window
            near = samples[first[:, None] + offsets[None, :] - self._first]
            made.append((near * weights).sum(axis=1))
        if not made:
            return b""
        self._made = count
        done = max(0, math.floor(count * self._step) - self._reach - self._first)
        self._kept, self._first = self._kept[done:], self._first + done
        whole = np.round(np.concatenate(made))
        return bytes(np.clip(whole, -32768, 32767).astype("<i2").tobytes())
