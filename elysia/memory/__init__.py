"""Long-term memory: what a character remembers of a user beyond the turns that fit the context.

`open_memory` opens the memory in a database; `summarize` condenses turns that no longer fit a prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elysia.memory.base import (
    Memory,
    MemoryHit,
    MemoryInput,
    MemoryKind,
    MemoryScope,
    MemoryStore,
    ReasonKind,
    RecallReason,
)

if TYPE_CHECKING:
    from elysia.memory.long_term import LongTermMemory, open_memory

__all__ = [
    "LongTermMemory",
    "Memory",
    "MemoryHit",
    "MemoryInput",
    "MemoryKind",
    "MemoryScope",
    "MemoryStore",
    "ReasonKind",
    "RecallReason",
    "open_memory",
]


def __getattr__(name: str) -> Any:
    # Prompts need the types alone; the store behind `open_memory` imports tantivy and SQLAlchemy.
    if name in ("LongTermMemory", "open_memory"):
        from elysia.memory import long_term

        return getattr(long_term, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
