"""An engine that says what it was told to say: for tests, demos and pages without a model.

It counts a character as a token and streams a few at a time, through the same stop texts and the
same rules on length and cancelling as a real engine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from elysia.core.errors import ContextError, EngineError
from elysia.core.messages import Conversation
from elysia.core.templates import PromptTemplate, render_prompt
from elysia.engines.base import Capability, Delta, GenerationRequest, TokenUsage
from elysia.models.streaming_text import StopTextFilter


class ScriptedEngine:
    """Replies in the order given; `requests` keeps what was asked. Out of replies: EngineError."""

    capabilities: frozenset[Capability] = frozenset({"text"})

    def __init__(
        self,
        replies: Iterable[str],
        *,
        context_length: int = 4096,
        piece: int = 2,
        slots: int = 1,
    ) -> None:
        self._replies = iter(replies)
        self.slots = slots
        self._piece = piece
        self.context_length = context_length
        self.requests: list[GenerationRequest] = []

    def count_tokens(self, messages: Conversation, template: PromptTemplate) -> int:
        """Characters of the chat prompt."""
        return len(render_prompt(messages, template))

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """The next reply, `piece` characters at a time."""
        self.requests.append(request)
        used = self.count_tokens(request.messages, request.template)
        used = len(request.text) if request.text is not None else used
        room = min(request.sampling.max_new_tokens, self.context_length - used)
        if room < 1:
            raise ContextError(
                f"The prompt has {used} tokens and the context only {self.context_length}."
            )
        reply = next(self._replies, None)
        if reply is None:
            raise EngineError("The script has no more replies.")
        stops = StopTextFilter(request.stop)
        said = 0
        while said < min(len(reply), room) and not stops.stopped:
            if cancel is not None and cancel.is_set():
                yield Delta(stops.rest(), "cancelled", TokenUsage(used, said))
                return
            piece = reply[said : min(said + self._piece, room)]
            said += len(piece)
            if text := stops.push(piece):
                yield Delta(text)
        ended = stops.stopped or len(reply) <= room
        yield Delta(stops.rest(), "stop" if ended else "length", TokenUsage(used, said))

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Nothing to embed with."""
        raise EngineError("A script has no embeddings.")

    def close(self) -> None:
        """Nothing to let go of."""
