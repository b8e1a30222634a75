"""The text endpoints: who may ask, what is asked, and the answer, complete or streamed.

A request holds its admission and its slot until its last byte is sent, or its client is gone.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from elysia.engines.base import Delta, GenerationRequest, Sampling
from elysia.gateway import request_mapping
from elysia.gateway.api_errors import ApiError, as_api_error
from elysia.gateway.keys import RateLimiter
from elysia.gateway.metrics import GatewayMetrics
from elysia.gateway.model_registry import GenerationSlot, ModelRegistry, ServedModel
from elysia.gateway.response_mapping import DONE_EVENT, ReplyChoice, ResponseBuilder, encode_event
from elysia.gateway.schemas import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    SamplingFields,
    SimpleRequest,
)

T = TypeVar("T")
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": "An error in OpenAI's form"}
    for status in (400, 401, 403, 404, 408, 413, 429, 500, 503)
}


@dataclass
class GatewayState:
    """What every endpoint needs."""

    models: ModelRegistry
    limiter: RateLimiter
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    defaults: Sampling = field(default_factory=Sampling)


class HeldStream(StreamingResponse):
    """A stream that releases `held` when it ends, also when it never begins."""

    def __init__(
        self, pieces: AsyncIterator[bytes], held: AsyncExitStack, kind: str = "text/event-stream"
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(pieces, media_type=kind, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, then release."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._held.aclose()


def build_router(state: GatewayState) -> APIRouter:
    """The routes over `state`. Their function names are operation ids in /openapi.json."""
    routes = APIRouter()
    post: dict[str, Any] = {"response_model": None, "responses": ERROR_RESPONSES}

    @routes.post("/v1/chat/completions", **post)
    async def chat(ask: ChatRequest, request: Request) -> Response:
        model = state.models.find(ask.model)
        build = partial(request_mapping.build_chat_request, ask, model, state.defaults)
        return await answer_generation(state, request, model, ask, build, "chat.completion")

    @routes.post("/v1/completions", **post)
    async def complete(ask: CompletionRequest, request: Request) -> Response:
        model = state.models.find(ask.model)
        build = partial(request_mapping.build_completion_request, ask, model, state.defaults)
        return await answer_generation(state, request, model, ask, build, "text_completion")

    @routes.post("/v1/embeddings", **post)
    async def embed(ask: EmbeddingRequest, request: Request) -> Response:
        return await answer_embeddings(state, request, ask)

    @routes.post("/", **post)
    async def simple(ask: SimpleRequest, request: Request) -> Response:
        return await answer_simple(state, request, ask)

    @routes.get("/v1/models", response_model=None, responses=ERROR_RESPONSES)
    async def models() -> Response:
        data = [describe_model(model) for model in state.models.models.values()]
        return JSONResponse({"object": "list", "data": data})

    @routes.get("/v1/models/{name:path}", response_model=None, responses=ERROR_RESPONSES)
    async def model(name: str) -> Response:
        return JSONResponse(describe_model(state.models.find(name)))

    _add_status_routes(routes, state)
    return routes


def _add_status_routes(routes: APIRouter, state: GatewayState) -> None:
    @routes.get("/health", response_model=None)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @routes.get("/ready", response_model=None, responses=ERROR_RESPONSES)
    async def ready(request: Request) -> Response:
        if getattr(request.app.state, "draining", False):
            raise ApiError("gateway.shutting_down", 503)
        return JSONResponse({"status": "ready", "models": list(state.models.models)})

    @routes.get("/metrics", response_model=None, responses=ERROR_RESPONSES)
    async def metrics() -> Response:
        for model in state.models.models.values():
            state.metrics.running.labels(model.name).set(model.queue.running)
            state.metrics.waiting.labels(model.name).set(model.queue.waiting)
        return Response(state.metrics.page(), media_type="text/plain; version=0.0.4")


def describe_model(model: ServedModel) -> dict[str, Any]:
    """A model as /v1/models lists it."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "elysia",
        "max_model_len": model.engine.context_length,
    }


async def answer_generation(
    state: GatewayState,
    request: Request,
    model: ServedModel,
    ask: SamplingFields,
    build: Callable[[], Awaitable[GenerationRequest]],
    kind: str,
) -> Response:
    """The answer to a chat or a text completion; `build` makes the engine's request."""
    held = AsyncExitStack()
    try:
        held.enter_context(state.limiter.admitted(request.state.usage))
        model.queue.refuse_if_full()
        generation = await build()
        entering = held.enter_async_context(state.models.slot(model, state.metrics))
        slot = await while_connected(request, entering)
        builder = ResponseBuilder(kind, model.name)
        if not ask.stream:
            choices = await while_connected(request, collect_choices(slot, generation, ask.n))
            await held.aclose()
            return JSONResponse(builder.whole(choices))
        # The first words are awaited before the answer begins, so that an error before them still has a
        # status of its own.
        replies = slot.deltas(generation)
        held.push_async_callback(replies.aclose)
        first = await while_connected(request, anext(replies))
        usage = bool(ask.stream_options and ask.stream_options.include_usage)
        return HeldStream(
            iter_events(slot, builder, generation, ask.n, first, replies, usage), held
        )
    except BaseException:
        await held.aclose()
        raise


async def collect_choices(
    slot: GenerationSlot, generation: GenerationRequest, count: int
) -> list[ReplyChoice]:
    """`count` complete choices, generated one after another in one slot."""
    choices = []
    for index in range(count):
        choice = ReplyChoice()
        async for deltas in slot.deltas(request_mapping.with_choice_seed(generation, index)):
            choice.add(deltas)
        choices.append(choice)
    return choices


async def iter_events(
    slot: GenerationSlot,
    builder: ResponseBuilder,
    generation: GenerationRequest,
    count: int,
    first: list[Delta],
    replies: AsyncIterator[list[Delta]],
    usage: bool,
) -> AsyncIterator[bytes]:
    """The stream: choice after choice, each in pieces, then the token counts if `usage` is set.

    `first` are the first deltas of `replies`. An error becomes an event, and the stream ends there,
    without [DONE].
    """
    choices = []
    try:
        for index in range(count):
            choice, begun = ReplyChoice(), False
            choices.append(choice)
            deltas: list[Delta] | None = first if index == 0 else None
            if index:
                replies = slot.deltas(request_mapping.with_choice_seed(generation, index))
            while deltas is not None or (deltas := await anext(replies, None)) is not None:
                choice.add(deltas)
                yield builder.event(index, deltas, choice.finish, usage=usage, first=not begun)
                begun, deltas = True, None
        if usage:
            yield builder.last(choices)
        yield DONE_EVENT
    except Exception as error:
        yield encode_event(as_api_error(error).body())


async def answer_embeddings(
    state: GatewayState, request: Request, ask: EmbeddingRequest
) -> Response:
    """The vectors of texts."""
    model = state.models.find(ask.model)
    request_mapping.require_capability(model, "embeddings", "input")
    with state.limiter.admitted(request.state.usage):
        await while_connected(request, model.queue.take())
        began = time.monotonic()
        try:
            vectors, tokens = await run_in_threadpool(model.engine.embed, ask.texts())
        finally:
            model.queue.release(began)
    as_base64 = ask.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": encode_floats(v) if as_base64 else v}
        for i, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": usage})


def encode_floats(vector: list[float]) -> str:
    """Little-endian float32 in base64, which OpenAI's clients ask for by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


async def answer_simple(state: GatewayState, request: Request, ask: SimpleRequest) -> Response:
    """A reply and the history with it, in the form of ChatGLM's simple API."""
    model = state.models.first
    with state.limiter.admitted(request.state.usage):
        model.queue.refuse_if_full()
        generation = await request_mapping.build_simple_request(ask, model, state.defaults)
        async with AsyncExitStack() as held:
            entering = held.enter_async_context(state.models.slot(model, state.metrics))
            slot = await while_connected(request, entering)
            (choice,) = await while_connected(request, collect_choices(slot, generation, 1))
    history = [*map(list, ask.history), [ask.prompt, choice.text]]
    return JSONResponse(
        {
            "response": choice.text,
            "history": history,
            "status": 200,
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
    )


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away (then ApiError 499)."""
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError("gateway.client_gone", 499)
    finally:
        task.cancel()
        disconnect.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
