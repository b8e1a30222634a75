"""The audio formats that speech is sent in: WAV, PCM, FLAC, and MP3 and Opus where libsndfile writes them."""

from __future__ import annotations

import importlib.util
import io
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from starlette.concurrency import run_in_threadpool

from elysia.gateway.api_errors import ApiError
from elysia.voice.audio import StreamResampler, encode_wav
from elysia.voice.base import AudioChunk

PCM_RATE = 24_000  # OpenAI's: its raw samples carry no rate
MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)
UNKNOWN_LENGTH = 0xFFFFFFFF  # in the header of a WAV that is still being made
# name -> media type, libsndfile's format and subtype, and the sample rates that it takes ((): any)
_LIBSNDFILE_FORMATS: dict[str, tuple[str, str, str, tuple[int, ...]]] = {
    "flac": ("audio/flac", "FLAC", "PCM_16", ()),
    "mp3": ("audio/mpeg", "MP3", "MPEG_LAYER_III", MP3_RATES),
    "opus": ("audio/ogg", "OGG", "OPUS", OPUS_RATES),
}
FORMATS = ("wav", "pcm", *_LIBSNDFILE_FORMATS)


@dataclass(frozen=True)
class AudioFormat:
    """One format, streamed or complete."""

    name: str
    media_type: str

    async def stream(
        self, first: AudioChunk, rest: AsyncIterator[AudioChunk]
    ) -> AsyncIterator[bytes]:
        """Bytes as the audio comes, at the first chunk's sample rate, or at PCM_RATE if the format has
        no header or does not take that rate. Lengths in a file's header stay open.
        """
        rate = output_rate(self.name, first.rate)
        resampler = StreamResampler(first.rate, rate)
        if self.name in _LIBSNDFILE_FORMATS:
            encoder = await run_in_threadpool(StreamEncoder, self.name, rate)
            yield await run_in_threadpool(encoder.push, resampler.push(first.data))
            async for chunk in rest:
                if data := await run_in_threadpool(encoder.push, resampler.push(chunk.data)):
                    yield data
            yield await run_in_threadpool(encoder.flush, resampler.flush())
            return
        if self.name == "wav":
            yield wav_header(rate)
        yield resampler.push(first.data)
        async for chunk in rest:
            yield resampler.push(chunk.data)
        yield resampler.flush()

    async def encode(self, first: AudioChunk, rest: AsyncIterator[AudioChunk]) -> bytes:
        """The complete file."""
        if self.name == "pcm":
            return b"".join([data async for data in self.stream(first, rest)])
        chunks = [first, *[chunk async for chunk in rest]]
        if self.name == "wav":
            return await run_in_threadpool(encode_wav, chunks)
        return await run_in_threadpool(encode_file, self.name, chunks)


def resolve_format(name: str | None) -> AudioFormat:
    """The format of a name. Without one MP3, like OpenAI, or WAV if MP3 is not available.

    ApiError 400 for a format that is not available.
    """
    known = available_formats()
    name = name or ("mp3" if "mp3" in known else "wav")
    if name not in known:
        raise ApiError(
            "gateway.no_such_format", 400, api_code="unsupported_format", param="response_format",
            name=name, known=known,
        )  # fmt: skip
    if name in _LIBSNDFILE_FORMATS:
        return AudioFormat(name, _LIBSNDFILE_FORMATS[name][0])
    media_types = {"wav": "audio/wav", "pcm": f"audio/pcm;rate={PCM_RATE}"}
    return AudioFormat(name, media_types[name])


@cache
def available_formats() -> tuple[str, ...]:
    """The formats that this installation can write."""
    if importlib.util.find_spec("soundfile") is None:
        return ("wav", "pcm")
    import soundfile

    return (
        "wav",
        "pcm",
        *(
            name
            for name, (_, form, subtype, _) in _LIBSNDFILE_FORMATS.items()
            if subtype in soundfile.available_subtypes(form)
        ),
    )


def output_rate(name: str, rate: int) -> int:
    """The sample rate in which a format writes audio of `rate`."""
    if name == "pcm":
        return PCM_RATE
    rates = _LIBSNDFILE_FORMATS[name][3] if name in _LIBSNDFILE_FORMATS else ()
    return rate if not rates or rate in rates else PCM_RATE


def encode_file(name: str, chunks: list[AudioChunk]) -> bytes:
    """A complete file in one of libsndfile's formats."""
    import numpy as np

    rate = output_rate(name, chunks[0].rate)
    resampler = StreamResampler(chunks[0].rate, rate)
    data = b"".join([*[resampler.push(chunk.data) for chunk in chunks], resampler.flush()])
    stream = io.BytesIO()
    with _open_sound_file(stream, name, rate) as file:
        file.write(np.frombuffer(data, "<i2"))
    return stream.getvalue()


class StreamEncoder:
    """One of libsndfile's formats, encoded while somebody already reads it."""

    def __init__(self, name: str, rate: int) -> None:
        self._stream = WriteOnlyBuffer()
        # The header of a streamed MP3 holds no count of frames; players compute the length from a
        # constant bit rate.
        options = {"bitrate_mode": "CONSTANT", "compression_level": 0.5} if name == "mp3" else {}
        self._file = _open_sound_file(self._stream, name, rate, **options)

    def push(self, data: bytes) -> bytes:
        """The bytes that are ready: nothing, until a page of the format is full."""
        import numpy as np

        self._file.write(np.frombuffer(data, "<i2"))
        return self._stream.take()

    def flush(self, data: bytes) -> bytes:
        """Encode the last samples, and return everything up to the end of the file."""
        encoded = self.push(data)
        self._file.close()
        return encoded + self._stream.take()


def _open_sound_file(stream: Any, name: str, rate: int, **options: Any) -> Any:
    import soundfile

    _, form, subtype, _ = _LIBSNDFILE_FORMATS[name]
    return soundfile.SoundFile(stream, "w", rate, 1, subtype, format=form, **options)


class WriteOnlyBuffer:
    """A file whose bytes are taken out as they come.

    What is later written over bytes that were already taken is lost: the lengths and checksums in a
    header, which a reader of a stream does without.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = self._position = 0  # of the buffer, and of the next write, in the file

    def write(self, data: Any) -> int:
        """Write at the current position."""
        content = bytes(data)
        start = max(self._position, self._start)
        fresh = content[start - self._position :]
        self._position += len(content)
        if fresh:
            begin = start - self._start
            self._buffer[begin : begin + len(fresh)] = fresh
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        end = self._start + len(self._buffer)
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}
        self._position = bases[whence] + offset
        return self._position

    def tell(self) -> int:
        """The current position."""
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Nothing: the file is only written."""
        return b""

    def flush(self) -> None:
        """Nothing to do."""

    def take(self) -> bytes:
        """The bytes that came since the last call."""
        data = bytes(self._buffer)
        self._start += len(data)
        self._buffer.clear()
        return data


def wav_header(rate: int) -> bytes:
    """The header of a 16-bit mono WAV whose length is not known yet."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", UNKNOWN_LENGTH, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", UNKNOWN_LENGTH)
    )
