"""What is served under which name, and how a request becomes deltas from its engine.

An engine is a blocking iterator; here it runs in a thread of its own, and the event loop hears of its
deltas as they come. A slot is given back when that thread has really ended. Knows nothing of HTTP.
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


@dataclass
class ServedModel:
    """One model under its name."""

    name: str
    engine: Engine
    manner: ChatFormat
    slots: AdmissionQueue
    created: int = field(default_factory=lambda: int(time.time()))


class ModelRegistry:
    """Every model that is served, by name."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self.models = dict(models)
        size = sum(served.slots.size for served in models.values())
        self._threads = ThreadPoolExecutor(size + 8, thread_name_prefix="reply")

    @property
    def first(self) -> ServedModel:
        """The one that the simple endpoint speaks with."""
        return next(iter(self.models.values()))

    def find(self, name: str) -> ServedModel:
        """The model of that name; ApiError 404 otherwise."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise ApiError(
                404, f"There is no model '{name[:100]}'; there is {known}.",
                code="model_not_found", param="model",
            )  # fmt: skip
        return self.models[name]

    def close(self) -> None:
        """Close every engine."""
        for served in self.models.values():
            served.engine.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def slot(
        self, served: ServedModel, metrics: GatewayMetrics
    ) -> AsyncIterator[GenerationSlot]:
        """A place in the model's queue, then in one of its slots, for replies one after another."""
        await served.slots.take()
        place = GenerationSlot(served, self._threads, metrics)
        try:
            yield place
        finally:
            place.leave()


class GenerationSlot:
    """A slot of a model while a request has it."""

    def __init__(
        self, served: ServedModel, threads: ThreadPoolExecutor, metrics: GatewayMetrics
    ) -> None:
        self._served = served
        self._threads = threads
        self._metrics = metrics
        self._began = time.monotonic()
        self._busy = False
        self._left = False

    def leave(self) -> None:
        """Give the slot back, or let the thread that still runs do so when it ends."""
        self._left = True
        if not self._busy:
            self._served.slots.release(self._began)

    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[list[Delta], None]:
        """The reply, in groups of what has come since the last group.

        Raises what the engine raises. Leaving early cancels the engine.
        """
        loop, cancel = asyncio.get_running_loop(), threading.Event()
        queue: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue()

        def tell(item: Delta | BaseException | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        def generate() -> None:
            try:
                for delta in self._served.engine.stream(request, cancel):
                    tell(delta)
                tell(None)
            except BaseException as error:
                tell(error)
            finally:
                loop.call_soon_threadsafe(self._ended)

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
                    self._metrics.first_token.labels(self._served.name).observe(pause)
                fault = next((item for item in group if isinstance(item, BaseException)), None)
                finished = fault is not None or None in group
                if said := [item for item in group if isinstance(item, Delta)]:
                    self._count(said[-1])
                    yield said
                if fault is not None:
                    raise fault
        finally:
            if not finished:
                cancel.set()
                self._metrics.cancelled.labels(self._served.name).inc()

    def _count(self, last: Delta) -> None:
        if last.usage:
            name = self._served.name
            self._metrics.prompt_tokens.labels(name).inc(last.usage.prompt_tokens)
            self._metrics.reply_tokens.labels(name).inc(last.usage.reply_tokens)

    def _ended(self) -> None:
        self._busy = False
        if self._left:
            self._served.slots.release(self._began)
