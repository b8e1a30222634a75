"""What a conversation is held with: an engine, and the chat format of its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from elysia.core.messages import Message
from elysia.core.templates import ChatTemplate
from elysia.engines.base import Engine
from elysia.models.chat_format import ChatFormat

COUNT_CACHE_SIZE = 4_096  # texts whose tokens are remembered
MAX_CACHED_LENGTH = 1_000  # characters up to which a text is one of them


@dataclass(frozen=True)
class ChatModel:
    """An engine with the chat format of its model."""

    engine: Engine
    chat_format: ChatFormat
    _count_cached: Callable[[str], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        cached = lru_cache(COUNT_CACHE_SIZE)(lambda text: self._count([Message("user", text)]))
        object.__setattr__(self, "_count_cached", cached)

    @property
    def template(self) -> ChatTemplate:
        """The prompt template."""
        return self.chat_format.template

    @property
    def system(self) -> str:
        """The default system prompt; '' for none."""
        return self.chat_format.system

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end a reply."""
        return self.chat_format.stop

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the chat prompt for `messages`.

        A turn counts each message of the history as a user's message alone, and the next turn counts
        the same ones again: short texts are therefore remembered.
        """
        if len(messages) == 1:
            message = messages[0]
            if len(message.text) <= MAX_CACHED_LENGTH and message == Message("user", message.text):
                return self._count_cached(message.text)
        return self._count(messages)

    def _count(self, messages: Sequence[Message]) -> int:
        return self.engine.count_tokens(list(messages), self.template)
