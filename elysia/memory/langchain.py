"""A memory as LangChain's retriever, for whoever builds chains: what is recalled comes as documents.

Knows nothing of how memories are kept or ranked.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from elysia.memory.base import MemoryHit, MemoryScope, MemoryStore


class MemoryRetriever(BaseRetriever):
    """Recalls from one scope of a store; `k` documents at most, best first."""

    store: Any  # a MemoryStore; pydantic cannot check a protocol
    scope: MemoryScope
    k: int = 8

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        store: MemoryStore = self.store
        return [build_document(found) for found in store.recall(self.scope, query, k=self.k)]


def build_document(found: MemoryHit) -> Document:
    """A recalled memory as a document; score, time and reason are in its metadata."""
    memory = found.memory
    metadata = {
        "kind": memory.kind,
        "at": memory.at,
        "slot": memory.slot,
        "current": memory.current,
        "conversation_id": memory.conversation_id,
        "message_id": memory.message_id,
        "score": found.score,
        "why": found.why,
    }
    return Document(id=memory.id, page_content=memory.text, metadata=metadata)
