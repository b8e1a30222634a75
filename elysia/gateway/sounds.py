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

from starlette.concurrency import run_in_threadpool

from elysia.gateway.errors import ApiError
from elysia.voice.audio import Resampler, wav
from elysia.voice.base import Pcm

PCM_RATE = 24_000  # OpenAI's: its raw samples carry no rate
MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)
UNKNOWN = 0xFFFFFFFF  # a WAV's length that nobody knows yet
# name -> media type, libsndfile's format and subtype, and the rates that it takes ((): any)
_WRITTEN: dict[str, tuple[str, str, str, tuple[int, ...]]] = {
    "flac": ("audio/flac", "FLAC", "PCM_16", ()),
    "mp3": ("audio/mpeg", "MP3", "MPEG_LAYER_III", MP3_RATES),
    "opus": ("audio/ogg", "OGG", "OPUS", OPUS_RATES),
}
FORMS = ("wav", "pcm", *_WRITTEN)


@dataclass(frozen=True)
class Form:
    """One form: whether it `flows`, piece by piece, or is written whole."""

    name: str
    media_type: str
    flows: bool

    async def flow(self, first: Pcm, rest: AsyncIterator[Pcm]) -> AsyncIterator[bytes]:
        """Bytes as sound comes, at the first piece's rate, or at PCM_RATE where no header names it."""
        raw = self.name == "pcm"
        rate = PCM_RATE if raw else first.rate
        if not raw:
            yield header(rate)
        mould = Resampler(first.rate, rate)
        yield mould.push(first.data)
        async for piece in rest:
            yield mould.push(piece.data)
        yield mould.rest()

    async def whole(self, first: Pcm, rest: AsyncIterator[Pcm]) -> bytes:
        """The file, all of it."""
        if self.name == "pcm":
            return b"".join([data async for data in self.flow(first, rest)])
        pieces = [first, *[piece async for piece in rest]]
        if self.name == "wav":
            return await run_in_threadpool(wav, pieces)
        return await run_in_threadpool(encoded, self.name, pieces)


def form_of(asked: str | None) -> Form:
    """The form of a name; MP3, as OpenAI, where none is named and it can be made, else WAV.

    ApiError 400 for one that is not made here.
    """
    made = available()
    name = asked or ("mp3" if "mp3" in made else "wav")
    if name not in made:
        raise ApiError(
            400, f"response_format '{name}' is not made here; there is {', '.join(made)}.",
            param="response_format", code="unsupported_format",
        )  # fmt: skip
    if name in _WRITTEN:
        return Form(name, _WRITTEN[name][0], False)
    kinds = {"wav": "audio/wav", "pcm": f"audio/pcm;rate={PCM_RATE}"}
    return Form(name, kinds[name], True)


@cache
def available() -> tuple[str, ...]:
    """The forms that this installation can make."""
    if importlib.util.find_spec("soundfile") is None:
        return ("wav", "pcm")
    import soundfile

    return (
        "wav",
        "pcm",
        *(
            name
            for name, (_, form, subtype, _) in _WRITTEN.items()
            if subtype in soundfile.available_subtypes(form)
        ),
    )


def encoded(name: str, pieces: list[Pcm]) -> bytes:
    """A file in one of libsndfile's forms, at the pieces' rate where the form takes it."""
    import numpy as np
    import soundfile

    _, form, subtype, rates = _WRITTEN[name]
    came = pieces[0].rate
    rate = came if not rates or came in rates else PCM_RATE
    mould = Resampler(came, rate)
    data = b"".join([*[mould.push(piece.data) for piece in pieces], mould.rest()])
    stream = io.BytesIO()
    soundfile.write(stream, np.frombuffer(data, "<i2"), rate, subtype, format=form)
    return stream.getvalue()


def header(rate: int) -> bytes:
    """Of a 16-bit mono WAV whose length is not known yet."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", UNKNOWN, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", UNKNOWN)
    )
