"""Audio as WAV files, and conversion between sample rates: of whole clips, and of streams without seams."""

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

DEFAULT_RATE = 22_050  # of a WAV file without any sound


def encode_wav(chunks: Iterable[AudioChunk], rate: int | None = None) -> bytes:
    """A 16-bit mono WAV file of all chunks, at `rate` or at the first chunk's."""
    buffer = io.BytesIO()
    _write_frames(buffer, chunks, rate)
    return buffer.getvalue()


def write_wav(path: str | Path, chunks: Iterable[AudioChunk]) -> float:
    """Write a WAV file as the chunks arrive, completely or not at all; returns its duration in seconds."""
    with staged_file(path) as stream:
        return _write_frames(stream, chunks)


def _write_frames(stream: BinaryIO, chunks: Iterable[AudioChunk], rate: int | None = None) -> float:
    frames, source_rate = 0, 0
    resampler: StreamResampler | None = None
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate or DEFAULT_RATE)  # the first chunk may still change it
        for chunk in chunks:
            if resampler is None:
                rate, source_rate = rate or chunk.rate, chunk.rate
                file.setframerate(rate)
                resampler = StreamResampler(source_rate, rate)
            if chunk.rate != source_rate:
                chunk = resample_chunk(chunk, source_rate)
            data = resampler.push(chunk.data)
            frames += len(data) // 2
            file.writeframesraw(data)
        data = resampler.flush() if resampler else b""
        frames += len(data) // 2
        file.writeframesraw(data)
    return frames / (rate or DEFAULT_RATE)


def resample_chunk(chunk: AudioChunk, rate: int) -> AudioChunk:
    """A complete sound at another sample rate."""
    resampler = StreamResampler(chunk.rate, rate)
    return AudioChunk(resampler.push(chunk.data) + resampler.flush(), rate)


class StreamResampler:
    """Resamples a stream of 16-bit samples without a seam where pieces meet.

    A windowed sinc of 32 zero crossings, with a low-pass at the lower of the two Nyquist frequencies.
    """

    def __init__(self, source_rate: int, rate: int) -> None:
        self._step = source_rate / rate
        self._cutoff = min(1.0, rate / source_rate)  # of the source's Nyquist frequency
        self._radius = math.ceil(16 / self._cutoff)  # samples that an output needs on either side
        # The samples that a later output may still need; `_start` is the index of the first one, and
        # negative indices are silence before the sound.
        self._buffer = array("h", bytes(2 * self._radius))
        self._start = -self._radius
        self._read = self._written = 0

    def push(self, data: bytes) -> bytes:
        """Add samples; returns all output that is complete by now."""
        if self._step == 1:
            return data
        self._append(data)
        # An output can be computed once `radius` samples behind it have arrived.
        return self._resample_until(math.ceil((self._read - self._radius) / self._step))

    def flush(self) -> bytes:
        """The rest of the output, once no more samples come."""
        if self._step == 1 or not self._read:
            return b""
        count = max(1, round(self._read / self._step))
        read = self._read
        self._append(
            bytes(2 * (self._radius + math.ceil(self._step) + 1))
        )  # silence behind the end
        self._read = read
        return self._resample_until(count)

    def _append(self, data: bytes) -> None:
        samples = array("h", data)
        if sys.byteorder == "big":
            samples.byteswap()
        self._buffer += samples
        self._read += len(samples)

    def _resample_until(self, count: int) -> bytes:
        """The outputs from the last written one up to number `count`; drops the samples behind them."""
        import numpy as np

        samples = np.asarray(self._buffer, dtype=np.float64)
        offsets = np.arange(1 - self._radius, self._radius + 1)
        blocks = []
        for start in range(
            self._written, count, 65536
        ):  # bounds the memory, however long the sound
            position = np.arange(start, min(count, start + 65536)) * self._step
            first = np.floor(position).astype(np.int64)
            distance = offsets[None, :] - (position - first)[:, None]
            window = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / self._radius, -1, 1))
            weights = self._cutoff * np.sinc(self._cutoff * distance) * window
            near = samples[first[:, None] + offsets[None, :] - self._start]
            blocks.append((near * weights).sum(axis=1))
        if not blocks:
            return b""
        self._written = count
        unneeded = max(0, math.floor(count * self._step) - self._radius - self._start)
        self._buffer, self._start = self._buffer[unneeded:], self._start + unneeded
        output = np.round(np.concatenate(blocks))
        return bytes(np.clip(output, -32768, 32767).astype("<i2").tobytes())
