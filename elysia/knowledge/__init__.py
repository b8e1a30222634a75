"""Documents that a character looks things up in: read, split into chunks, found and cited.

`open_document_store` opens the knowledge base in a database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elysia.knowledge.base import Document, KnowledgeBase, SearchHit

if TYPE_CHECKING:
    from elysia.knowledge.document_store import DocumentStore, open_document_store

__all__ = ["Document", "DocumentStore", "KnowledgeBase", "SearchHit", "open_document_store"]


def __getattr__(name: str) -> Any:
    # The child process that reads a file imports this package and must stay small; see `sandbox`.
    if name in ("DocumentStore", "open_document_store"):
        from elysia.knowledge import document_store

        return getattr(document_store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
