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
from elysia.gateway import audio_formats
from elysia.gateway.admission_queue import AdmissionQueue
from elysia.gateway.api_errors import ApiError, as_api_error
from elysia.gateway.response_mapping import encode_event
from elysia.gateway.routes import ERROR_RESPONSES, GatewayState, HeldStream, while_connected
from elysia.gateway.schemas import SpeechRequest
from elysia.voice.base import MAX_SPEED, MIN_SPEED, AudioChunk
from elysia.voice.frontend.pipeline import normalize_text
from elysia.voice.registry import VoiceFile
from elysia.voice.sentence_splitter import split_sentences
from elysia.voice.streaming import MAX_WAITING_SENTENCES, SpeechStream, SpokenChunk, TTSWorkerPool

MAX_CONCURRENT = 4  # requests that are spoken side by side; one voice is made by one thread anyway


class VoiceRegistry:
    """The voices that are served, by name."""

    def __init__(self, files: Mapping[str, VoiceFile], queue: int) -> None:
        self.files = dict(files)
        self.slots = AdmissionQueue(MAX_CONCURRENT, queue)
        self.threads = ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="speech")
        self._speakers = TTSWorkerPool(
            lambda name: (self.files[name].open(), self.files[name].speed)
        )

    def find(self, name: str) -> VoiceFile:
        """The voice of that name; ApiError 404 otherwise."""
        if name not in self.files:
            known = ", ".join(self.files) or "none"
            raise ApiError(
                404, f"There is no voice '{name[:64]}'; there is {known}.{nearest(name, self.files)}",
                code="voice_not_found", param="voice",
            )  # fmt: skip
        return self.files[name]

    def begin(self, file: VoiceFile, sentences: list[str], speed: float) -> SpeechStream:
        """Order sentences of the voice; VoiceError when it cannot be opened."""
        both = min(max(speed * file.speed, MIN_SPEED), MAX_SPEED)
        utterance = self._speakers.get(file.name).open_stream(both / file.speed)
        utterance.write("\n".join(sentences))
        utterance.end()
        return utterance

    async def spoken(
        self, file: VoiceFile, text: str, speed: float
    ) -> AsyncGenerator[AudioChunk, None]:
        """The sound of a text, a piece at a time, as fast as it is taken; ApiError when it fails.

        Leaving early silences it.
        """
        loop = asyncio.get_running_loop()
        for sentences in batch_sentences(split_sentences(text)):
            begun = loop.run_in_executor(self.threads, self.begin, file, sentences, speed)
            try:
                utterance = await asyncio.shield(begun)
            except asyncio.CancelledError:
                begun.add_done_callback(_stop_stream)
                raise
            sound = utterance.sound()
            try:
                while True:
                    piece = await loop.run_in_executor(self.threads, _next_chunk, sound)
                    if piece is None:
                        break
                    yield piece.audio
            finally:
                utterance.stop()
            if utterance.fault is not None:
                raise voice_error(utterance.fault)

    def close(self) -> None:
        """Silence every voice and end its processes."""
        self._speakers.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


def _stop_stream(begun: asyncio.Future[SpeechStream]) -> None:
    """What was begun for a client who left in that moment."""
    if not begun.cancelled() and begun.exception() is None:
        begun.result().stop()


def _next_chunk(sound: Iterator[SpokenChunk]) -> SpokenChunk | None:
    return next(sound, None)


def batch_sentences(sentences: list[str]) -> Iterator[list[str]]:
    """As many at once as a voice lets wait."""
    for start in range(0, len(sentences), MAX_WAITING_SENTENCES // 2):
        yield sentences[start : start + MAX_WAITING_SENTENCES // 2]


def voice_error(error: VoiceError) -> ApiError:
    """What a client is told of a voice that failed."""
    return ApiError(503, str(error), code="voice_error", headers={"Retry-After": "5"})


def build_speech_router(desk: GatewayState, voices: VoiceRegistry) -> APIRouter:
    """Both paths."""
    routes = APIRouter()

    @routes.post("/v1/audio/speech", response_model=None, responses=ERROR_RESPONSES)
    async def speech(ask: SpeechRequest, request: Request) -> Response:
        return await answer_speech(desk, voices, request, ask)

    @routes.get("/v1/audio/voices", response_model=None, responses=ERROR_RESPONSES)
    async def listed() -> Response:
        return JSONResponse(
            {"object": "list", "data": [describe_voice(f) for f in voices.files.values()]}
        )

    return routes


def describe_voice(file: VoiceFile) -> dict[str, Any]:
    """A voice as /v1/audio/voices tells it."""
    return {
        "id": file.name, "object": "voice", "name": file.name, "description": file.description,
        "engine": file.engine,
    }  # fmt: skip


async def answer_speech(
    desk: GatewayState, voices: VoiceRegistry, request: Request, ask: SpeechRequest
) -> Response:
    """The sound of a text: whole, streamed as it is made, or in events."""
    file = voices.find(ask.name)
    form = audio_formats.resolve_format(ask.response_format)
    held = AsyncExitStack()
    try:
        held.enter_context(desk.gate.admitted(request.state.holder))
        if not await run_in_threadpool(normalize_text, ask.input):
            raise ApiError(400, "There is nothing in the input that can be said.", param="input")
        await held.enter_async_context(_hold_slot(voices, request))
        pieces = voices.spoken(file, ask.input, ask.speed)
        held.push_async_callback(pieces.aclose)
        counted = _count_seconds(pieces, desk, file.name)
        # The first sound is awaited here, so that what fails before it has a status of its own.
        first = await while_connected(request, _first_chunk(counted))
        if ask.stream_format == "sse":
            return HeldStream(_iter_events(form, first, counted, ask), held)
        if ask.stream_format == "audio":
            return HeldStream(form.flow(first, counted), held, form.media_type)
        data = await while_connected(request, form.whole(first, counted))
        await held.aclose()
        return Response(data, media_type=form.media_type)
    except VoiceError as error:
        await held.aclose()
        raise voice_error(error) from error
    except BaseException:
        await held.aclose()
        raise


@asynccontextmanager
async def _hold_slot(voices: VoiceRegistry, request: Request) -> AsyncIterator[None]:
    """One of the places to be spoken in, while a request has it."""
    await while_connected(request, voices.slots.take())
    began = time.monotonic()
    try:
        yield
    finally:
        voices.slots.release(began)


async def _first_chunk(pieces: AsyncIterator[AudioChunk]) -> AudioChunk:
    first = await anext(pieces, None)
    if first is None:
        raise ApiError(400, "The voice has no sounds for this input.", param="input")
    return first


async def _count_seconds(
    pieces: AsyncGenerator[AudioChunk, None], desk: GatewayState, name: str
) -> AsyncIterator[AudioChunk]:
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


async def _iter_events(
    form: audio_formats.AudioFormat,
    first: AudioChunk,
    pieces: AsyncIterator[AudioChunk],
    ask: SpeechRequest,
) -> AsyncIterator[bytes]:
    """Events as OpenAI's; the usage counts characters. What fails is an event, and the last one."""
    try:
        async for data in form.flow(first, pieces):
            yield _audio_event(data)
        read = len(ask.input)
        usage = {"input_tokens": read, "output_tokens": 0, "total_tokens": read}
        yield encode_event({"type": "speech.audio.done", "usage": usage})
    except Exception as error:
        yield encode_event(as_api_error(error).body())


def _audio_event(data: bytes) -> bytes:
    return encode_event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
