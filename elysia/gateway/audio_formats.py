"""The forms that speech is sent in: WAV, PCM, FLAC, and MP3 and Opus where libsndfile can write them.

Knows nothing of voices or of HTTP beyond the 400 for a form that is not made here.
"""

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
UNKNOWN_LENGTH = 0xFFFFFFFF  # a WAV's length that nobody knows yet
# name -> media type, libsndfile's format and subtype, and the rates that it takes ((): any)
_LIBSNDFILE_FORMATS: dict[str, tuple[str, str, str, tuple[int, ...]]] = {
    "flac": ("audio/flac", "FLAC", "PCM_16", ()),
    "mp3": ("audio/mpeg", "MP3", "MPEG_LAYER_III", MP3_RATES),
    "opus": ("audio/ogg", "OGG", "OPUS", OPUS_RATES),
}
FORMATS = ("wav", "pcm", *_LIBSNDFILE_FORMATS)


@dataclass(frozen=True)
class AudioFormat:
    """One form, as it is made or whole."""

    name: str
    media_type: str

    async def flow(
        self, first: AudioChunk, rest: AsyncIterator[AudioChunk]
    ) -> AsyncIterator[bytes]:
        """Bytes as sound comes, at the first piece's rate, or at PCM_RATE where no header names it
        or the form does not take it. What a file's header says of the whole is left open.
        """
        rate = output_rate(self.name, first.rate)
        mould = StreamResampler(first.rate, rate)
        if self.name in _LIBSNDFILE_FORMATS:
            encoder = await run_in_threadpool(StreamEncoder, self.name, rate)
            yield await run_in_threadpool(encoder.push, mould.push(first.data))
            async for piece in rest:
                if data := await run_in_threadpool(encoder.push, mould.push(piece.data)):
                    yield data
            yield await run_in_threadpool(encoder.flush, mould.flush())
            return
        if self.name == "wav":
            yield wav_header(rate)
        yield mould.push(first.data)
        async for piece in rest:
            yield mould.push(piece.data)
        yield mould.flush()

    async def whole(self, first: AudioChunk, rest: AsyncIterator[AudioChunk]) -> bytes:
        """The file, all of it."""
        if self.name == "pcm":
            return b"".join([data async for data in self.flow(first, rest)])
        pieces = [first, *[piece async for piece in rest]]
        if self.name == "wav":
            return await run_in_threadpool(encode_wav, pieces)
        return await run_in_threadpool(encode_file, self.name, pieces)


def resolve_format(asked: str | None) -> AudioFormat:
    """The form of a name; MP3, as OpenAI, where none is named and it can be made, else WAV.

    ApiError 400 for one that is not made here.
    """
    made = available_formats()
    name = asked or ("mp3" if "mp3" in made else "wav")
    if name not in made:
        raise ApiError(
            400, f"response_format '{name}' is not made here; there is {', '.join(made)}.",
            param="response_format", code="unsupported_format",
        )  # fmt: skip
    if name in _LIBSNDFILE_FORMATS:
        return AudioFormat(name, _LIBSNDFILE_FORMATS[name][0])
    kinds = {"wav": "audio/wav", "pcm": f"audio/pcm;rate={PCM_RATE}"}
    return AudioFormat(name, kinds[name])


@cache
def available_formats() -> tuple[str, ...]:
    """The forms that this installation can make."""
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


def output_rate(name: str, came: int) -> int:
    """The rate that a form has of sound that came at `came`."""
    if name == "pcm":
        return PCM_RATE
    rates = _LIBSNDFILE_FORMATS[name][3] if name in _LIBSNDFILE_FORMATS else ()
    return came if not rates or came in rates else PCM_RATE


def encode_file(name: str, pieces: list[AudioChunk]) -> bytes:
    """A file in one of libsndfile's forms, at the pieces' rate where the form takes it."""
    import numpy as np

    rate = output_rate(name, pieces[0].rate)
    mould = StreamResampler(pieces[0].rate, rate)
    data = b"".join([*[mould.push(piece.data) for piece in pieces], mould.flush()])
    stream = io.BytesIO()
    with _sound_file(stream, name, rate) as file:
        file.write(np.frombuffer(data, "<i2"))
    return stream.getvalue()


class StreamEncoder:
    """One of libsndfile's forms as it is written, for a reader who is already there."""

    def __init__(self, name: str, rate: int) -> None:
        self._stream = WriteOnlyBuffer()
        # Without a count in its header, an MP3's length is told by a bit rate that does not change.
        even = {"bitrate_mode": "CONSTANT", "compression_level": 0.5} if name == "mp3" else {}
        self._file = _sound_file(self._stream, name, rate, **even)

    def push(self, data: bytes) -> bytes:
        """What the form has of these samples by now: nothing, until a page of it is full."""
        import numpy as np

        self._file.write(np.frombuffer(data, "<i2"))
        return self._stream.take()

    def flush(self, data: bytes) -> bytes:
        """The last samples, and the end."""
        done = self.push(data)
        self._file.close()
        return done + self._stream.take()


def _sound_file(stream: Any, name: str, rate: int, **how: Any) -> Any:
    import soundfile

    _, form, subtype, _ = _LIBSNDFILE_FORMATS[name]
    return soundfile.SoundFile(stream, "w", rate, 1, subtype, format=form, **how)


class WriteOnlyBuffer:
    """A file whose bytes are taken away as they come; what is written over them later is lost: the
    lengths and sums that a header holds, which a reader does without.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._taken = self._at = 0

    def write(self, data: Any) -> int:
        """Write at the present place."""
        whole = bytes(data)
        start = max(self._at, self._taken)
        fresh = whole[start - self._at :]
        self._at += len(whole)
        if fresh:
            begin = start - self._taken
            self._kept[begin : begin + len(fresh)] = fresh
        return len(whole)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Another place."""
        begins = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end()}
        self._at = begins[whence] + place
        return self._at

    def tell(self) -> int:
        """The present place."""
        return self._at

    def read(self, count: int = -1) -> bytes:
        """Nothing: it is written only."""
        return b""

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        """What has come since the last time."""
        data = bytes(self._kept)
        self._taken += len(data)
        self._kept.clear()
        return data

    def _end(self) -> int:
        return self._taken + len(self._kept)


def wav_header(rate: int) -> bytes:
    """Of a 16-bit mono WAV whose length is not known yet."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", UNKNOWN_LENGTH, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", UNKNOWN_LENGTH)
    )
