"""Long-term memory: what a character remembers of a user beyond the turns that fit the context.

`open_memory` opens the memory in a database; `summarize` condenses turns that no longer fit a prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elysia.core.lazy_imports import build_getattr
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

# Imported on first use: prompts need the types alone; the store imports tantivy and SQLAlchemy.
_MODULES = {"LongTermMemory": "long_term", "open_memory": "long_term"}
__getattr__ = build_getattr(__name__, _MODULES)
