"""A session: the history of one conversation, and one turn of it.

Fits the context by leaving out whole oldest turns; the system message and the newest message always
stay. Knows nothing of which engine answers, nor of where the words are shown.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from elysia.chat.prompt.character_state import CharacterState, PromptFrame
from elysia.core.errors import EngineError
from elysia.core.messages import Message
from elysia.core.templates import PromptTemplate
from elysia.engines.base import Delta, Engine, GenerationRequest, Sampling

log = logging.getLogger(__name__)


class ChatSession:
    """One conversation with one engine. Not for two threads at once."""

    def __init__(
        self,
        engine: Engine,
        template: PromptTemplate,
        *,
        system: str = "",
        stop: Sequence[str] = (),
        sampling: Sampling | None = None,
        character: CharacterState | None = None,
    ) -> None:
        """With a `character` the conversation opens with its greeting, and each turn's prompt is
        its card's; `system` is then what a card without a system prompt takes.
        """
        self.engine = engine
        self.template = template
        self.system = system
        self.stop = tuple(dict.fromkeys(stop))
        self.sampling = sampling or Sampling()
        self.character = character
        # User and assistant by turns, a greeting first, without the system message.
        self.history: list[Message] = character.opening() if character else []
        self._left_out = 0

    def reset(self) -> None:
        """Forget every turn but the greeting."""
        self.history = self.character.opening() if self.character else []
        self._left_out = 0

    def reply(self, text: str, cancel: threading.Event | None = None) -> Iterator[Delta]:
        """Stream the reply to `text` and remember both.

        A reply that was cancelled, or whose iterator was closed, is remembered as far as it came; a
        turn that said nothing, or failed, is forgotten. Raises EngineError with a sentence, among
        others when the message does not fit the context even alone.
        """
        turn = Message("user", text)
        staging = self._staging([*self.history, turn])
        prompt = self._fitted([*self.history, turn], staging)
        request = GenerationRequest(prompt, self.template, self.stop, self._next_sampling())
        said: list[str] = []
        try:
            for delta in self.engine.stream(request, cancel):
                said.append(delta.text)
                yield delta
        finally:
            if reply := "".join(said):
                self.history += [turn, Message("assistant", reply)]
                if self.character:
                    self.character.remember(staging)

    def _staging(self, messages: list[Message]) -> PromptFrame:
        if self.character is None:
            return PromptFrame(self.system)
        empty = self._count([Message("user", "")])
        return self.character.stage(
            messages,
            lambda text: self._count([Message("user", text)]) - empty,
            self.engine.context_length,
            self.system,
        )

    def _next_sampling(self) -> Sampling:
        """The sampling with a seed of this turn's own: the same question twice may be answered
        anew, and the same conversation from the start is answered the same.
        """
        seed = self.sampling.seed
        if seed is None:
            return self.sampling
        return replace(self.sampling, seed=seed + len(self.history) // 2)

    def _fitted(self, messages: list[Message], staging: PromptFrame) -> list[Message]:
        """`messages` as they are staged, without the oldest turns that leave no room to reply.

        The room is max_new_tokens, but never more than half of the context: a small model with a
        generous limit still remembers something.
        """
        limit = self.engine.context_length
        room = min(self.sampling.max_new_tokens, limit // 2)
        used = self._count(staging.around(messages))
        first = 0
        while used + room > limit and first + 2 < len(messages):
            first += 2
            used = self._count(staging.around(messages[first:]))
        if used >= limit:
            raise EngineError(
                f"The message with the system prompt has {used} tokens and the model's context is "
                f"{limit}: there is no room for a reply. Shorten the message or the system prompt."
            )
        if first // 2 > self._left_out:
            log.info("(The oldest %d turns no longer fit the context of %d.)", first // 2, limit)
        self._left_out = first // 2
        return staging.around(messages[first:])

    def _count(self, messages: Sequence[Message]) -> int:
        return self.engine.count_tokens(messages, self.template)
