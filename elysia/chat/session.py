"""A session: the history of one conversation, and one turn of it.

Fits the context by leaving out whole oldest turns; the system message and the newest message always
stay. Knows nothing of which engine answers, nor of where the words are shown.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from elysia.core.errors import EngineError
from elysia.core.messages import Message
from elysia.core.templates import PromptTemplate
from elysia.engines.base import Delta, Engine, Request, Sampling

log = logging.getLogger(__name__)


class Session:
    """One conversation with one engine. Not for two threads at once."""

    def __init__(
        self,
        engine: Engine,
        template: PromptTemplate,
        *,
        system: str = "",
        stop: Sequence[str] = (),
        sampling: Sampling | None = None,
    ) -> None:
        self.engine = engine
        self.template = template
        self.system = system
        self.stop = tuple(dict.fromkeys(stop))
        self.sampling = sampling or Sampling()
        self.history: list[Message] = []  # user and assistant by turns, without the system message
        self._left_out = 0

    def reset(self) -> None:
        """Forget every turn."""
        self.history = []
        self._left_out = 0

    def reply(self, text: str, cancel: threading.Event | None = None) -> Iterator[Delta]:
        """Stream the reply to `text` and remember both.

        A reply that was cancelled, or whose iterator was closed, is remembered as far as it came; a
        turn that said nothing, or failed, is forgotten. Raises EngineError with a sentence, among
        others when the message does not fit the context even alone.
        """
        turn = Message("user", text)
        prompt = self._fitted([*self.history, turn])
        request = Request(prompt, self.template, self.stop, self._next_sampling())
        said: list[str] = []
        try:
            for delta in self.engine.stream(request, cancel):
                said.append(delta.text)
                yield delta
        finally:
            if reply := "".join(said):
                self.history += [turn, Message("assistant", reply)]

    def _next_sampling(self) -> Sampling:
        """The sampling with a seed of this turn's own: the same question twice may be answered
        anew, and the same conversation from the start is answered the same.
        """
        seed = self.sampling.seed
        if seed is None:
            return self.sampling
        return replace(self.sampling, seed=seed + len(self.history) // 2)

    def _fitted(self, messages: list[Message]) -> list[Message]:
        """`messages` behind the system message, without the oldest turns that leave no room to
        reply.

        The room is max_new_tokens, but never more than half of the context: a small model with a
        generous limit still remembers something.
        """
        front = [Message("system", self.system)] if self.system else []
        limit = self.engine.context_length
        room = min(self.sampling.max_new_tokens, limit // 2)
        used = self._count(front + messages)
        first = 0
        while used + room > limit and first + 2 < len(messages):
            first += 2
            used = self._count(front + messages[first:])
        if used >= limit:
            raise EngineError(
                f"The message with the system prompt has {used} tokens and the model's context is "
                f"{limit}: there is no room for a reply. Shorten the message or the system prompt."
            )
        if first // 2 > self._left_out:
            log.info("(The oldest %d turns no longer fit the context of %d.)", first // 2, limit)
        self._left_out = first // 2
        return front + messages[first:]

    def _count(self, messages: Sequence[Message]) -> int:
        return self.engine.count_tokens(messages, self.template)
