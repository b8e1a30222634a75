"""Documents that a character looks things up in: read, split into chunks, found and cited.

`open_document_store` opens the knowledge base in a database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elysia.core.lazy_imports import build_getattr
from elysia.knowledge.base import Document, KnowledgeBase, SearchHit

if TYPE_CHECKING:
    from elysia.knowledge.document_store import DocumentStore, open_document_store

__all__ = ["Document", "DocumentStore", "KnowledgeBase", "SearchHit", "open_document_store"]

# Imported on first use: the child process that reads a file must stay small; see `sandbox`.
_MODULES = {"DocumentStore": "document_store", "open_document_store": "document_store"}
__getattr__ = build_getattr(__name__, _MODULES)
