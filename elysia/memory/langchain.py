"""A memory as a LangChain retriever: what is recalled comes as documents."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from elysia.memory.base import MemoryHit, MemoryScope, MemoryStore


class MemoryRetriever(BaseRetriever):
    """Recalls from one scope of a store; at most `k` documents, best first."""

    store: Any  # a MemoryStore; pydantic cannot check a protocol
    scope: MemoryScope
    k: int = 8

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        store: MemoryStore = self.store
        return [build_document(hit) for hit in store.recall(self.scope, query, k=self.k)]


def build_document(hit: MemoryHit) -> Document:
    """A recalled memory as a document, with score, time and reasons in its metadata."""
    memory = hit.memory
    metadata = {
        "kind": memory.kind,
        "at": memory.at,
        "slot": memory.slot,
        "current": memory.current,
        "conversation_id": memory.conversation_id,
        "message_id": memory.message_id,
        "score": hit.score,
        "why": str(hit.explanation),
    }
    return Document(id=memory.id, page_content=memory.text, metadata=metadata)
