"""What a conversation is had with: an engine, and how its model wants to be spoken to.

Knows nothing of how either was opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from elysia.core.messages import Message
from elysia.core.templates import PromptTemplate
from elysia.engines.base import Engine

COUNT_CACHE_SIZE = 4_096  # texts whose tokens are known
MAX_CACHED_LENGTH = 1_000  # characters up to which a text is kept for that


@dataclass(frozen=True)
class ChatModel:
    """An engine and how its model wants to be spoken to."""

    engine: Engine
    template: PromptTemplate
    system: str = ""
    stop: tuple[str, ...] = ()
    _alone: Callable[[str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kept = lru_cache(COUNT_CACHE_SIZE)(lambda text: self._count([Message("user", text)]))
        object.__setattr__(self, "_alone", kept)

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the chat prompt for `messages`. The same short texts are counted turn by turn,
        each as a user's message alone: those are remembered.
        """
        if len(messages) == 1:
            one = messages[0]
            if len(one.text) <= MAX_CACHED_LENGTH and one == Message("user", one.text):
                return self._alone(one.text)
        return self._count(messages)

    def _count(self, messages: Sequence[Message]) -> int:
        return self.engine.count_tokens(list(messages), self.template)
