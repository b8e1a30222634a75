"""What every memory is: turns go in, what matters to a question comes out. Scoped, always.

Knows nothing of any implementation, of prompts or of who asks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

MemoryKind = Literal["turn", "fact"]


@dataclass(frozen=True)
class MemoryScope:
    """Whose memory it is: a user's (id) with one character (key). Nothing crosses it."""

    user: str
    character: str


@dataclass(frozen=True)
class MemoryInput:
    """One message that the character heard. `at` is seconds since 1970; `speaker` a name to show."""

    message_id: str
    conversation_id: str
    role: str  # user or assistant
    speaker: str
    text: str
    at: float


@dataclass(frozen=True)
class Memory:
    """Something remembered: a turn's words, or a fact of the user. In the language it was said in.

    `current` is False for a fact that a newer one has replaced. `message_id` is where it was said.
    """

    id: str
    kind: MemoryKind
    text: str
    at: float
    importance: float = 0.5
    slot: str | None = None
    conversation_id: str | None = None
    message_id: str | None = None
    current: bool = True
    corrected: bool = False


@dataclass(frozen=True)
class MemoryHit:
    """A memory that was found, its score (higher is better) and why, for the receipt."""

    memory: Memory
    score: float
    why: str


class MemoryStore(Protocol):
    """Long-term memory. May be called from several threads."""

    def remember(self, scope: MemoryScope, heard: Sequence[MemoryInput]) -> list[Memory]:
        """Take in messages, in order; what is new is given back. A message heard twice is once."""

    def recall(
        self, scope: MemoryScope, question: str, *, k: int = 8, without: Collection[str] = ()
    ) -> list[MemoryHit]:
        """The best `k` for a question, best first; replaced facts never; nothing of the messages
        `without` (ids: those that stand in the prompt anyway).
        """

    def list_memories(
        self, scope: MemoryScope, *, kind: MemoryKind | None = None, limit: int = 200
    ) -> list[Memory]:
        """What is remembered, newest first, replaced facts among them."""

    def correct(self, scope: MemoryScope, memory_id: str, text: str) -> Memory:
        """Put the user's words in a memory's place. MemoryFault when it is not in the scope."""

    def forget(self, scope: MemoryScope, memory_id: str) -> None:
        """Forget one, for good, with what it replaced. MemoryFault when it is not in the scope."""

    def forget_messages(self, scope: MemoryScope, message_ids: Collection[str]) -> None:
        """Forget what came from these messages: they were deleted or written anew."""

    def forget_all(self, scope: MemoryScope) -> None:
        """Forget everything of the scope."""

    def close(self) -> None:
        """Let go of files and connections; the database is its opener's."""
