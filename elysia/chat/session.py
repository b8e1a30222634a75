"""A conversation in memory, for the terminal: its history, and one turn of it.

The context is kept by leaving out whole oldest turns; the system message and the newest message always
stay.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from elysia.chat.prompt.character_state import CharacterState, PromptFrame, TokenBudget, fit_history
from elysia.core.errors import EngineError
from elysia.core.messages import Message
from elysia.core.templates import ChatTemplate
from elysia.engines.base import Delta, Engine, GenerationRequest, Sampling

log = logging.getLogger(__name__)


class ChatSession:
    """One conversation with one engine, for one thread at a time."""

    def __init__(
        self,
        engine: Engine,
        template: ChatTemplate,
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
        self.history: list[Message] = character.begin() if character else []
        self._turns_left_out = 0

    def reset(self) -> None:
        """Forget every turn but the greeting."""
        self.history = self.character.begin() if self.character else []
        self._turns_left_out = 0

    def reply(self, text: str, cancel: threading.Event | None = None) -> Iterator[Delta]:
        """Stream the reply to `text` and remember both.

        A reply that was cancelled, or whose iterator was closed, is remembered as far as it came; a
        turn that gave no text, or failed, is forgotten. Raises EngineError, among others when the
        message does not fit the context even alone.
        """
        turn = Message("user", text)
        messages = [*self.history, turn]
        frame = self._build_frame(messages)
        prompt = self._fit(messages, frame)
        request = GenerationRequest(prompt, self.template, self.stop, self._next_sampling())
        pieces: list[str] = []
        try:
            for delta in self.engine.stream(request, cancel):
                pieces.append(delta.text)
                yield delta
        finally:
            if reply := "".join(pieces):
                self.history += [turn, Message("assistant", reply)]
                if self.character:
                    self.character.remember(frame)

    def _build_frame(self, messages: list[Message]) -> PromptFrame:
        if self.character is None:
            return PromptFrame(self.system)
        empty = self._count([Message("user", "")])
        return self.character.build_frame(
            messages,
            lambda text: self._count([Message("user", text)]) - empty,
            self.engine.context_length,
            self.system,
        )

    def _next_sampling(self) -> Sampling:
        """The sampling with this turn's own seed: the same question asked twice may be answered
        differently, and the same conversation from the start is answered the same.
        """
        seed = self.sampling.seed
        if seed is None:
            return self.sampling
        return replace(self.sampling, seed=seed + len(self.history) // 2)

    def _fit(self, messages: list[Message], frame: PromptFrame) -> list[Message]:
        """The prompt without the oldest turns that leave no room for a reply."""
        budget = TokenBudget(self.engine.context_length, self.sampling.max_new_tokens)
        last = len(messages) - 1
        prompt, first, tokens = fit_history(
            frame, messages, 0, self._count, budget.prompt,
            lambda first: first + 2 if first + 2 <= last else first,
        )  # fmt: skip
        if tokens >= budget.context:
            raise EngineError("chat.system_leaves_no_room", tokens=tokens, context=budget.context)
        if first // 2 > self._turns_left_out:
            log.info(
                "(The oldest %d turns no longer fit the context of %d.)", first // 2, budget.context
            )
        self._turns_left_out = first // 2
        return prompt

    def _count(self, messages: Sequence[Message]) -> int:
        return self.engine.count_tokens(messages, self.template)
