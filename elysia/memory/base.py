"""The interface of every memory: messages go in, what matters to a question comes out, per scope."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from elysia.core.i18n import Text

MemoryKind = Literal["turn", "fact"]


@dataclass(frozen=True)
class MemoryScope:
    """A user (id) with one character (key). Memories never cross scopes."""

    user: str
    character: str


@dataclass(frozen=True)
class MemoryInput:
    """One message for a memory. `at` is in seconds since 1970; `speaker` is a display name."""

    message_id: str
    conversation_id: str
    role: str  # user or assistant
    speaker: str
    text: str
    at: float


@dataclass(frozen=True)
class Memory:
    """Something remembered: a turn's words, or a fact about the user, in the language of the turn.

    `current` is False for a fact that a newer one has replaced. `message_id` is its source. `at` is in
    seconds since 1970, `importance` from 0 to 1.
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


class ReasonKind(StrEnum):
    """What raised or lowered a memory's score; each is the code of its words in `memory.toml`."""

    WORDS = "memory.reason_words"  # value: the share of the question's words
    SYNONYMS = "memory.reason_synonyms"  # value: the share of other words for its subject
    NEIGHBOUR = "memory.reason_neighbour"  # value: the neighbouring turn's score
    SUBJECT_FACT = "memory.reason_subject_fact"  # value: the subject
    DAY = "memory.reason_day"  # a day that the question names
    OUTDATED = "memory.reason_outdated"  # a fact of this turn was replaced


@dataclass(frozen=True)
class RecallReason:
    """One reason why a memory was recalled. `value` is a score from 0 to about 1, or a subject."""

    kind: ReasonKind
    value: float | str = ""

    def render(self, language: str = "en") -> str:
        """For people."""
        return Text(self.kind, {"value": self.value}).render(language)


@dataclass(frozen=True)
class MemoryHit:
    """A recalled memory, its score (higher is better, about 0 to 1) and why it was recalled."""

    memory: Memory
    score: float
    reasons: tuple[RecallReason, ...] = ()

    @property
    def explanation(self) -> Text:
        """The reasons for people, as a list with commas."""
        reasons = [Text(reason.kind, {"value": reason.value}) for reason in self.reasons]
        return Text("memory.reasons", {"reasons": reasons})


class MemoryStore(Protocol):
    """Long-term memory. May be called from several threads."""

    def remember(self, scope: MemoryScope, messages: Sequence[MemoryInput]) -> list[Memory]:
        """Take in messages, in order, and return what is new. A message counts once, by its id."""

    def recall(
        self, scope: MemoryScope, question: str, *, k: int = 8, without: Collection[str] = ()
    ) -> list[MemoryHit]:
        """The best `k` for a question, best first; never replaced facts, and nothing of the messages
        `without` (ids: those that are in the prompt anyway).
        """

    def list_memories(
        self, scope: MemoryScope, *, kind: MemoryKind | None = None, limit: int = 200
    ) -> list[Memory]:
        """Everything remembered, newest first, replaced facts included."""

    def correct(self, scope: MemoryScope, memory_id: str, text: str) -> Memory:
        """Replace a memory's text by the user's words. MemoryFault when it is not in the scope."""

    def forget(self, scope: MemoryScope, memory_id: str) -> None:
        """Delete a memory for good, with what it replaced. MemoryFault when it is not in the scope."""

    def forget_messages(self, scope: MemoryScope, message_ids: Collection[str]) -> None:
        """Delete what came from these messages: they were deleted or edited."""

    def forget_all(self, scope: MemoryScope) -> None:
        """Delete everything of the scope."""

    def close(self) -> None:
        """Release files; the database belongs to whoever opened it."""
