"""Speech under OpenAI's paths: POST /v1/audio/speech and GET /v1/audio/voices.

Requests for one voice take turns sentence by sentence (`voice.streaming`), and one whose client leaves
frees the voice at once. A voice is opened at its first request.
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
from elysia.core.i18n import Text
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

MAX_CONCURRENT = 4  # requests that are spoken side by side; each voice has one thread anyway


class VoiceRegistry:
    """The served voices, by name."""

    def __init__(self, files: Mapping[str, VoiceFile], max_waiting: int) -> None:
        self.files = dict(files)
        self.queue = AdmissionQueue(MAX_CONCURRENT, max_waiting)
        self.threads = ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="speech")
        self._workers = TTSWorkerPool(
            lambda name: (self.files[name].open(), self.files[name].speed)
        )

    def find(self, name: str) -> VoiceFile:
        """The voice of that name; ApiError 404 otherwise."""
        if name not in self.files:
            raise ApiError(
                "gateway.no_such_voice", 404, api_code="voice_not_found", param="voice",
                name=name[:64], known=[*self.files] or Text("voice.none"),
                hint=nearest(name, self.files),
            )  # fmt: skip
        return self.files[name]

    def open_stream(self, file: VoiceFile, sentences: list[str], speed: float) -> SpeechStream:
        """A stream of complete sentences; VoiceError when the voice cannot be opened."""
        # The voice's own speed counts, too; their product stays in range.
        total = min(max(speed * file.speed, MIN_SPEED), MAX_SPEED)
        stream = self._workers.get(file.name).open_stream(total / file.speed)
        stream.write("\n".join(sentences))
        stream.end()
        return stream

    async def speak(
        self, file: VoiceFile, text: str, speed: float
    ) -> AsyncGenerator[AudioChunk, None]:
        """The audio of a text, made as fast as it is taken; ApiError when the voice fails.

        Leaving early silences it.
        """
        loop = asyncio.get_running_loop()
        for sentences in batch_sentences(split_sentences(text)):
            opening = loop.run_in_executor(self.threads, self.open_stream, file, sentences, speed)
            try:
                stream = await asyncio.shield(opening)
            except asyncio.CancelledError:
                # The thread goes on: stop the stream as soon as it is open.
                opening.add_done_callback(_stop_stream)
                raise
            chunks = stream.sound()
            try:
                while True:
                    chunk = await loop.run_in_executor(self.threads, _next_chunk, chunks)
                    if chunk is None:
                        break
                    yield chunk.audio
            finally:
                stream.stop()
            if stream.fault is not None:
                raise voice_error(stream.fault)

    def close(self) -> None:
        """Silence every voice and end its processes."""
        self._workers.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


def _stop_stream(opening: asyncio.Future[SpeechStream]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().stop()


def _next_chunk(chunks: Iterator[SpokenChunk]) -> SpokenChunk | None:
    return next(chunks, None)


def batch_sentences(sentences: list[str]) -> Iterator[list[str]]:
    """Batches that fit into a stream's queue, which would leave out the rest."""
    for start in range(0, len(sentences), MAX_WAITING_SENTENCES // 2):
        yield sentences[start : start + MAX_WAITING_SENTENCES // 2]


def voice_error(error: VoiceError) -> ApiError:
    """What a client sees of a voice that failed."""
    return ApiError(str(error), 503, api_code="voice_error", headers={"Retry-After": "5"})


def build_speech_router(state: GatewayState, voices: VoiceRegistry) -> APIRouter:
    """The two routes. Their function names are operation ids in /openapi.json."""
    routes = APIRouter()

    @routes.post("/v1/audio/speech", response_model=None, responses=ERROR_RESPONSES)
    async def speech(ask: SpeechRequest, request: Request) -> Response:
        return await answer_speech(state, voices, request, ask)

    @routes.get("/v1/audio/voices", response_model=None, responses=ERROR_RESPONSES)
    async def listed() -> Response:
        data = [describe_voice(file) for file in voices.files.values()]
        return JSONResponse({"object": "list", "data": data})

    return routes


def describe_voice(file: VoiceFile) -> dict[str, Any]:
    """A voice as /v1/audio/voices lists it."""
    return {
        "id": file.name, "object": "voice", "name": file.name, "description": file.description,
        "engine": file.engine,
    }  # fmt: skip


async def answer_speech(
    state: GatewayState, voices: VoiceRegistry, request: Request, ask: SpeechRequest
) -> Response:
    """The audio of a text: complete, streamed as it is made, or in events."""
    file = voices.find(ask.name)
    form = audio_formats.resolve_format(ask.response_format)
    held = AsyncExitStack()
    try:
        held.enter_context(state.limiter.admitted(request.state.usage))
        if not await run_in_threadpool(normalize_text, ask.input):
            raise ApiError("gateway.nothing_to_say", 400, param="input")
        await held.enter_async_context(_hold_slot(voices, request))
        chunks = voices.speak(file, ask.input, ask.speed)
        held.push_async_callback(chunks.aclose)
        counted = _count_seconds(chunks, state, file.name)
        # The first audio is awaited before the answer begins, so that an error before it still has a
        # status of its own.
        first = await while_connected(request, _first_chunk(counted))
        if ask.stream_format == "sse":
            return HeldStream(_iter_events(form, first, counted, ask), held)
        if ask.stream_format == "audio":
            return HeldStream(form.stream(first, counted), held, form.media_type)
        data = await while_connected(request, form.encode(first, counted))
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
    """One of the MAX_CONCURRENT slots, while a request holds it."""
    await while_connected(request, voices.queue.take())
    began = time.monotonic()
    try:
        yield
    finally:
        voices.queue.release(began)


async def _first_chunk(chunks: AsyncIterator[AudioChunk]) -> AudioChunk:
    first = await anext(chunks, None)
    if first is None:
        raise ApiError("gateway.no_sounds", 400, param="input")
    return first


async def _count_seconds(
    chunks: AsyncGenerator[AudioChunk, None], state: GatewayState, name: str
) -> AsyncIterator[AudioChunk]:
    """`chunks`, with their seconds counted, and with those who left before the end."""
    complete = False
    try:
        async for chunk in chunks:
            state.metrics.spoken.labels(name).inc(chunk.seconds)
            yield chunk
        complete = True
    finally:
        if not complete:
            state.metrics.silenced.labels(name).inc()


async def _iter_events(
    form: audio_formats.AudioFormat,
    first: AudioChunk,
    chunks: AsyncIterator[AudioChunk],
    ask: SpeechRequest,
) -> AsyncIterator[bytes]:
    """OpenAI's events; the usage counts characters. An error becomes the last event."""
    try:
        async for data in form.stream(first, chunks):
            yield _audio_event(data)
        count = len(ask.input)
        usage = {"input_tokens": count, "output_tokens": 0, "total_tokens": count}
        yield encode_event({"type": "speech.audio.done", "usage": usage})
    except Exception as error:
        yield encode_event(as_api_error(error).body())


def _audio_event(data: bytes) -> bytes:
    audio = base64.b64encode(data).decode()
    return encode_event({"type": "speech.audio.delta", "audio": audio})
