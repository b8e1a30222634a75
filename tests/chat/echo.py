"""A stand-in engine for many at once: it answers every message with that message's own words.

What a reply says depends on its prompt alone, so that a reply which reached somebody else is seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from elysia.core.errors import EngineError
from elysia.engines.base import Delta, GenerationRequest, TokenUsage
from elysia.models.streaming_text import StopTextFilter


class EchoEngine:
    """Says «heard: WORDS» a few characters at a time, each after `pause` seconds."""

    capabilities: frozenset = frozenset()

    def __init__(
        self, *, slots: int = 4, pause: float = 0.0, context: int = 4096, reply=None, keep=True
    ):
        self.slots = slots
        self.pause = pause
        self.context_length = context
        self.reply = reply or (lambda request: f"heard: {request.messages[-1].text}")
        self.keep = keep  # every request, for tests; in a long run they fill the memory
        self.requests: list[GenerationRequest] = []
        self.running = 0
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    def count_tokens(self, messages, template) -> int:
        return sum(len(message.text) + 4 for message in messages)

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        with self._lock:
            if self.keep:
                self.requests.append(request)
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            text = self.reply(request)
            stops = StopTextFilter(request.stop)
            for start in range(0, len(text), 3):
                self.gate.wait()
                if cancel is not None and cancel.wait(self.pause):
                    yield Delta(stops.rest(), "cancelled", TokenUsage(1, start))
                    return
                if piece := stops.push(text[start : start + 3]):
                    yield Delta(piece)
                if stops.stopped:
                    break
            yield Delta(stops.rest(), "stop", TokenUsage(1, len(text)))
        finally:
            with self._lock:
                self.running -= 1

    def embed(self, texts):
        raise EngineError("none")

    def close(self) -> None:
        self.gate.set()
