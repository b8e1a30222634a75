"""An engine that replies from a list: for tests, demos and pages without a model.

It counts a character as a token and streams a few at a time, with the same stop texts and the same
rules on length and cancelling as a real engine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from elysia.core.errors import EngineError
from elysia.core.messages import Conversation
from elysia.core.templates import ChatTemplate, render_prompt
from elysia.engines.base import (
    Capability,
    Delta,
    FinishReason,
    GenerationRequest,
    TokenUsage,
    count_room,
)
from elysia.models.streaming_text import ReplyFilter


class ScriptedEngine:
    """Replies in the order given, then EngineError; `requests` records what was asked for."""

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

    def count_tokens(self, messages: Conversation, template: ChatTemplate) -> int:
        """Characters of the chat prompt."""
        return len(render_prompt(messages, template))

    def stream(
        self, request: GenerationRequest, cancel: threading.Event | None = None
    ) -> Iterator[Delta]:
        """The next reply, `piece` characters at a time."""
        self.requests.append(request)
        used = self.count_tokens(request.messages, request.template)
        used = len(request.text) if request.text is not None else used
        room = count_room(request.sampling, used, self.context_length)
        reply = next(self._replies, None)
        if reply is None:
            raise EngineError("engines.script_exhausted")
        pieces = ReplyFilter(request.stop, _get_prompt_end(request), raw=request.text is not None)
        count = thought = 0
        finish: FinishReason = "length"
        while count < min(len(reply), room) and not pieces.stopped:
            if cancel is not None and cancel.is_set():
                finish = "cancelled"
                break
            new = reply[count : min(count + self._piece, room)]
            count += len(new)
            thought += len(new) if pieces.thinking else 0
            if any(piece := pieces.push(new)):
                yield Delta(piece.text, reasoning=piece.reasoning)
        if finish != "cancelled" and (pieces.stopped or len(reply) <= room):
            finish = "stop"
        last = pieces.rest()
        yield Delta(last.text, finish, TokenUsage(used, count, thought), reasoning=last.reasoning)

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Not offered."""
        raise EngineError("engines.no_embeddings_scripted")

    def close(self) -> None:
        """Nothing to release."""


def _get_prompt_end(request: GenerationRequest) -> str:
    """The end of the chat prompt, which may open a thought."""
    return (
        "" if request.text is not None else render_prompt(request.messages, request.template)[-64:]
    )
