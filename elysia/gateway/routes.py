"""The endpoints: who may ask, what is asked, and the answer whole or streamed.

Every request holds its admission and its slot until its last byte, or until its client is gone.
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

from elysia.engines import base
from elysia.engines.base import Delta, Sampling
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

    catalogue: ModelRegistry
    gate: RateLimiter
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    defaults: Sampling = field(default_factory=Sampling)


class HeldStream(StreamingResponse):
    """A stream of events, or of another kind, that lets go of `held` when it ends, even before it has
    begun.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], held: AsyncExitStack, kind: str = "text/event-stream"
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(pieces, media_type=kind, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, and let go."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._held.aclose()


def build_router(desk: GatewayState) -> APIRouter:
    """Every path under its method."""
    routes = APIRouter()
    post: dict[str, Any] = {"response_model": None, "responses": ERROR_RESPONSES}

    @routes.post("/v1/chat/completions", **post)
    async def chat(ask: ChatRequest, request: Request) -> Response:
        served = desk.catalogue.find(ask.model)
        wanted = partial(request_mapping.build_chat_request, ask, served, desk.defaults)
        return await answer_generation(desk, request, served, ask, wanted, "chat.completion")

    @routes.post("/v1/completions", **post)
    async def complete(ask: CompletionRequest, request: Request) -> Response:
        served = desk.catalogue.find(ask.model)
        wanted = partial(request_mapping.build_completion_request, ask, served, desk.defaults)
        return await answer_generation(desk, request, served, ask, wanted, "text_completion")

    @routes.post("/v1/embeddings", **post)
    async def embed(ask: EmbeddingRequest, request: Request) -> Response:
        return await answer_embeddings(desk, request, ask)

    @routes.post("/", **post)
    async def simple(ask: SimpleRequest, request: Request) -> Response:
        return await answer_simple(desk, request, ask)

    @routes.get("/v1/models", response_model=None, responses=ERROR_RESPONSES)
    async def models() -> Response:
        return JSONResponse(
            {"object": "list", "data": [describe_model(s) for s in _served_models(desk)]}
        )

    @routes.get("/v1/models/{name:path}", response_model=None, responses=ERROR_RESPONSES)
    async def model(name: str) -> Response:
        return JSONResponse(describe_model(desk.catalogue.find(name)))

    @routes.get("/health", response_model=None)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @routes.get("/ready", response_model=None, responses=ERROR_RESPONSES)
    async def ready(request: Request) -> Response:
        if getattr(request.app.state, "draining", False):
            raise ApiError(503, "The server is shutting down.")
        return JSONResponse({"status": "ready", "models": list(desk.catalogue.models)})

    @routes.get("/metrics", response_model=None, responses=ERROR_RESPONSES)
    async def metrics() -> Response:
        for served in _served_models(desk):
            desk.metrics.running.labels(served.name).set(served.slots.running)
            desk.metrics.waiting.labels(served.name).set(served.slots.waiting)
        return Response(desk.metrics.page(), media_type="text/plain; version=0.0.4")

    return routes


def _served_models(desk: GatewayState) -> list[ServedModel]:
    return list(desk.catalogue.models.values())


def describe_model(served: ServedModel) -> dict[str, Any]:
    """A model as /v1/models tells it."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "elysia",
        "max_model_len": served.engine.context_length,
    }


async def answer_generation(
    desk: GatewayState,
    request: Request,
    served: ServedModel,
    ask: SamplingFields,
    wanted: Callable[[], Awaitable[base.GenerationRequest]],
    kind: str,
) -> Response:
    """The answer to a chat or a text completion."""
    held = AsyncExitStack()
    try:
        held.enter_context(desk.gate.admitted(request.state.holder))
        served.slots.refuse_full()
        asked = await wanted()
        slot = desk.catalogue.slot(served, desk.metrics)
        place = await while_connected(request, held.enter_async_context(slot))
        answer = ResponseBuilder(kind, served.name)
        if not ask.stream:
            choices = await while_connected(request, collect_choices(place, asked, ask.n))
            await held.aclose()
            return JSONResponse(answer.whole(choices))
        # The first words are awaited here, so that what fails before them has a status of its own.
        replies = place.deltas(asked)
        held.push_async_callback(replies.aclose)
        first = await while_connected(request, anext(replies))
        usage = bool(ask.stream_options and ask.stream_options.include_usage)
        return HeldStream(iter_events(place, answer, asked, ask.n, first, replies, usage), held)
    except BaseException:
        await held.aclose()
        raise


async def collect_choices(
    place: GenerationSlot, asked: base.GenerationRequest, count: int
) -> list[ReplyChoice]:
    """Every choice, complete, one after another in one slot."""
    choices = []
    for index in range(count):
        choice = ReplyChoice()
        async for deltas in place.deltas(request_mapping.with_choice_seed(asked, index)):
            choice.add(deltas)
        choices.append(choice)
    return choices


async def iter_events(
    place: GenerationSlot,
    answer: ResponseBuilder,
    asked: base.GenerationRequest,
    count: int,
    first: list[Delta],
    replies: AsyncIterator[list[Delta]],
    usage: bool,
) -> AsyncIterator[bytes]:
    """The stream: choice after choice, each in pieces, then the count of tokens.

    What fails in between is an event with the error; the stream ends there, without [DONE].
    """
    choices = []
    try:
        for index in range(count):
            choice, begun = ReplyChoice(), False
            choices.append(choice)
            deltas: list[Delta] | None = first if index == 0 else None
            if index:
                replies = place.deltas(request_mapping.with_choice_seed(asked, index))
            while deltas is not None or (deltas := await anext(replies, None)) is not None:
                choice.add(deltas)
                yield answer.event(index, deltas, choice.finish, usage=usage, first=not begun)
                begun, deltas = True, None
        if usage:
            yield answer.last(choices)
        yield DONE_EVENT
    except Exception as error:
        yield encode_event(as_api_error(error).body())


async def answer_embeddings(
    desk: GatewayState, request: Request, ask: EmbeddingRequest
) -> Response:
    """Vectors of texts."""
    served = desk.catalogue.find(ask.model)
    request_mapping.require_capability(served, "embeddings", "input")
    with desk.gate.admitted(request.state.holder):
        await while_connected(request, served.slots.take())
        began = time.monotonic()
        try:
            vectors, read = await run_in_threadpool(served.engine.embed, ask.texts())
        finally:
            served.slots.release(began)
    packs = ask.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": encode_floats(v) if packs else v}
        for i, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": read, "total_tokens": read}
    return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage})


def encode_floats(vector: list[float]) -> str:
    """Little-endian float32 in base64, as OpenAI's clients ask for by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


async def answer_simple(desk: GatewayState, request: Request, ask: SimpleRequest) -> Response:
    """A reply and the history with it, as the simple deployments answer."""
    served = desk.catalogue.first
    with desk.gate.admitted(request.state.holder):
        served.slots.refuse_full()
        asked = await request_mapping.build_simple_request(ask, served, desk.defaults)
        async with AsyncExitStack() as held:
            slot = desk.catalogue.slot(served, desk.metrics)
            place = await while_connected(request, held.enter_async_context(slot))
            (choice,) = await while_connected(request, collect_choices(place, asked, 1))
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
    gone = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "The client closed the connection.")
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
