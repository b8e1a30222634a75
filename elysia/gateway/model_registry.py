"""The served models by name, and how a request becomes deltas of its engine.

An engine is a blocking iterator. It runs in a thread of its own, and the event loop receives its deltas as
they come. A slot is given back only when that thread has really ended.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from elysia.app import ChatFormat
from elysia.engines.base import Delta, Engine, GenerationRequest
from elysia.gateway.admission_queue import AdmissionQueue
from elysia.gateway.api_errors import ApiError
from elysia.gateway.metrics import GatewayMetrics

SPARE_THREADS = 8  # for replies that were cancelled and have not ended yet


@dataclass
class ServedModel:
    """One model under its name."""

    name: str
    engine: Engine
    chat_format: ChatFormat
    queue: AdmissionQueue
    created: int = field(default_factory=lambda: int(time.time()))


class ModelRegistry:
    """Every served model, by name."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self.models = dict(models)
        size = sum(model.queue.size for model in models.values())
        self._threads = ThreadPoolExecutor(size + SPARE_THREADS, thread_name_prefix="reply")

    @property
    def first(self) -> ServedModel:
        """The model of the simple endpoint, which names none."""
        return next(iter(self.models.values()))

    def find(self, name: str) -> ServedModel:
        """The model of that name; ApiError 404 otherwise."""
        if name not in self.models:
            raise ApiError(
                "gateway.no_such_model", 404, api_code="model_not_found", param="model",
                name=name[:100], known=[*self.models],
            )  # fmt: skip
        return self.models[name]

    def close(self) -> None:
        """Close every engine."""
        for model in self.models.values():
            model.engine.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def slot(
        self, model: ServedModel, metrics: GatewayMetrics
    ) -> AsyncIterator[GenerationSlot]:
        """Wait in the model's queue, then hold one of its slots, for replies one after another."""
        await model.queue.take()
        slot = GenerationSlot(model, self._threads, metrics)
        try:
            yield slot
        finally:
            slot.leave()


class GenerationSlot:
    """A slot of a model, while a request holds it."""

    def __init__(
        self, model: ServedModel, threads: ThreadPoolExecutor, metrics: GatewayMetrics
    ) -> None:
        self._model = model
        self._threads = threads
        self._metrics = metrics
        self._began = time.monotonic()
        self._busy = False
        self._released = False

    def leave(self) -> None:
        """Give the slot back; if its thread still runs, that does so when it ends."""
        self._released = True
        if not self._busy:
            self._model.queue.release(self._began)

    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[list[Delta], None]:
        """The reply, in groups of what has come since the last group.

        Raises what the engine raises. Leaving early cancels the engine.
        """
        loop, cancel = asyncio.get_running_loop(), threading.Event()
        queue: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue()

        def put(item: Delta | BaseException | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        def generate() -> None:
            try:
                for delta in self._model.engine.stream(request, cancel):
                    put(delta)
                put(None)  # the end
            except BaseException as error:
                put(error)
            finally:
                loop.call_soon_threadsafe(self._on_thread_end)

        self._busy = True
        self._threads.submit(generate)
        finished, started = False, time.monotonic()
        try:
            while not finished:
                group = [await queue.get()]
                while not queue.empty():
                    group.append(queue.get_nowait())
                if started:
                    pause, started = time.monotonic() - started, 0.0
                    self._metrics.first_token.labels(self._model.name).observe(pause)
                fault = next((item for item in group if isinstance(item, BaseException)), None)
                finished = fault is not None or None in group
                if deltas := [item for item in group if isinstance(item, Delta)]:
                    self._count_tokens(deltas[-1])
                    yield deltas
                if fault is not None:
                    raise fault
        finally:
            if not finished:
                cancel.set()
                self._metrics.cancelled.labels(self._model.name).inc()

    def _count_tokens(self, last: Delta) -> None:
        if last.usage:
            name = self._model.name
            self._metrics.prompt_tokens.labels(name).inc(last.usage.prompt_tokens)
            self._metrics.reply_tokens.labels(name).inc(last.usage.reply_tokens)

    def _on_thread_end(self) -> None:
        self._busy = False
        if self._released:
            self._model.queue.release(self._began)
