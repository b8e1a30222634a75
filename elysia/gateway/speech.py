"""Speech under OpenAI's paths: POST /v1/audio/speech and GET /v1/audio/voices.

A request's sound is its own; requests for one voice take turns by sentence (`voice.speaker`), and one
whose client leaves gives the voice free at once. Voices are opened when they are first asked for.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from elysia.core.errors import VoiceError, nearest
from elysia.gateway import sounds
from elysia.gateway.answering import packed
from elysia.gateway.endpoints import FAULTS, Desk, Stream, while_here
from elysia.gateway.errors import ApiError, as_api_error
from elysia.gateway.shapes import SpeechRequest
from elysia.gateway.slots import Slots
from elysia.voice.base import FASTEST, SLOWEST, Pcm
from elysia.voice.sentences import split
from elysia.voice.speaker import MOST_SENTENCES, Speakers, Spoken, Utterance
from elysia.voice.text.explain import prepare
from elysia.voice.voices import VoiceFile

TOGETHER = 4  # requests that are spoken side by side; one voice is made by one thread anyway


class Voices:
    """The voices that are served, by name."""

    def __init__(self, files: Mapping[str, VoiceFile], queue: int) -> None:
        self.files = dict(files)
        self.slots = Slots(TOGETHER, queue)
        self.threads = ThreadPoolExecutor(TOGETHER, thread_name_prefix="speech")
        self._speakers = Speakers(lambda name: (self.files[name].open(), self.files[name].speed))

    def find(self, name: str) -> VoiceFile:
        """The voice of that name; ApiError 404 otherwise."""
        if name not in self.files:
            known = ", ".join(self.files) or "none"
            raise ApiError(
                404, f"There is no voice '{name[:64]}'; there is {known}.{nearest(name, self.files)}",
                code="voice_not_found", param="voice",
            )  # fmt: skip
        return self.files[name]

    def begin(self, file: VoiceFile, sentences: list[str], speed: float) -> Utterance:
        """Order sentences of the voice; VoiceError when it cannot be opened."""
        both = min(max(speed * file.speed, SLOWEST), FASTEST)
        utterance = self._speakers.of(file.name).begin(both / file.speed)
        utterance.write("\n".join(sentences))
        utterance.end()
        return utterance

    async def spoken(self, file: VoiceFile, text: str, speed: float) -> AsyncGenerator[Pcm, None]:
        """The sound of a text, a piece at a time, as fast as it is taken; ApiError when it fails.

        Leaving early silences it.
        """
        loop = asyncio.get_running_loop()
        for sentences in batches(split(text)):
            begun = loop.run_in_executor(self.threads, self.begin, file, sentences, speed)
            try:
                utterance = await asyncio.shield(begun)
            except asyncio.CancelledError:
                begun.add_done_callback(_silence)
                raise
            sound = utterance.sound()
            try:
                while True:
                    piece = await loop.run_in_executor(self.threads, _next, sound)
                    if piece is None:
                        break
                    yield piece.pcm
            finally:
                utterance.stop()
            if utterance.fault is not None:
                raise failed(utterance.fault)

    def close(self) -> None:
        """Silence every voice and end its processes."""
        self._speakers.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


def _silence(begun: asyncio.Future[Utterance]) -> None:
    """What was begun for a client who left in that moment."""
    if not begun.cancelled() and begun.exception() is None:
        begun.result().stop()


def _next(sound: Iterator[Spoken]) -> Spoken | None:
    return next(sound, None)


def batches(sentences: list[str]) -> Iterator[list[str]]:
    """As many at once as a voice lets wait."""
    for start in range(0, len(sentences), MOST_SENTENCES // 2):
        yield sentences[start : start + MOST_SENTENCES // 2]


def failed(error: VoiceError) -> ApiError:
    """What a client is told of a voice that failed."""
    return ApiError(503, str(error), code="voice_error", headers={"Retry-After": "5"})


def router(desk: Desk, voices: Voices) -> APIRouter:
    """Both paths."""
    routes = APIRouter()

    @routes.post("/v1/audio/speech", response_model=None, responses=FAULTS)
    async def speech(ask: SpeechRequest, request: Request) -> Response:
        return await speak(desk, voices, request, ask)

    @routes.get("/v1/audio/voices", response_model=None, responses=FAULTS)
    async def listed() -> Response:
        return JSONResponse({"object": "list", "data": [card(f) for f in voices.files.values()]})

    return routes


def card(file: VoiceFile) -> dict[str, Any]:
    """A voice as /v1/audio/voices tells it."""
    return {
        "id": file.name, "object": "voice", "name": file.name, "description": file.description,
        "engine": file.engine,
    }  # fmt: skip


async def speak(desk: Desk, voices: Voices, request: Request, ask: SpeechRequest) -> Response:
    """The sound of a text: whole, streamed as it is made, or in events."""
    file = voices.find(ask.name)
    form = sounds.form_of(ask.response_format)
    held = AsyncExitStack()
    try:
        held.enter_context(desk.gate.admitted(request.state.holder))
        if not await run_in_threadpool(prepare, ask.input):
            raise ApiError(400, "There is nothing in the input that can be said.", param="input")
        await held.enter_async_context(_slot(voices, request))
        pieces = voices.spoken(file, ask.input, ask.speed)
        held.push_async_callback(pieces.aclose)
        counted = _counted(pieces, desk, file.name)
        # The first sound is awaited here, so that what fails before it has a status of its own.
        first = await while_here(request, _first(counted))
        if ask.stream_format == "sse":
            return Stream(_events(form, first, counted, ask), held)
        if ask.stream_format == "audio":
            return Stream(form.flow(first, counted), held, form.media_type)
        data = await while_here(request, form.whole(first, counted))
        await held.aclose()
        return Response(data, media_type=form.media_type)
    except VoiceError as error:
        await held.aclose()
        raise failed(error) from error
    except BaseException:
        await held.aclose()
        raise


@asynccontextmanager
async def _slot(voices: Voices, request: Request) -> AsyncIterator[None]:
    """One of the places to be spoken in, while a request has it."""
    await while_here(request, voices.slots.take())
    began = time.monotonic()
    try:
        yield
    finally:
        voices.slots.release(began)


async def _first(pieces: AsyncIterator[Pcm]) -> Pcm:
    first = await anext(pieces, None)
    if first is None:
        raise ApiError(400, "The voice has no sounds for this input.", param="input")
    return first


async def _counted(pieces: AsyncGenerator[Pcm, None], desk: Desk, name: str) -> AsyncIterator[Pcm]:
    """`pieces`, their seconds counted; and who left before the end, too."""
    whole = False
    try:
        async for piece in pieces:
            desk.metrics.spoken.labels(name).inc(piece.seconds)
            yield piece
        whole = True
    finally:
        if not whole:
            desk.metrics.silenced.labels(name).inc()


async def _events(
    form: sounds.Form, first: Pcm, pieces: AsyncIterator[Pcm], ask: SpeechRequest
) -> AsyncIterator[bytes]:
    """Events as OpenAI's; the usage counts characters. What fails is an event, and the last one."""
    try:
        async for data in form.flow(first, pieces):
            yield _delta(data)
        read = len(ask.input)
        usage = {"input_tokens": read, "output_tokens": 0, "total_tokens": read}
        yield packed({"type": "speech.audio.done", "usage": usage})
    except Exception as error:
        yield packed(as_api_error(error).body())


def _delta(data: bytes) -> bytes:
    return packed({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
