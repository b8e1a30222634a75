"""LangChain adapters: a knowledge base as a retriever, and LangChain's documents into a knowledge base."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document as Passage
from langchain_core.retrievers import BaseRetriever

from elysia.core.errors import KnowledgeError
from elysia.knowledge.base import Document, KnowledgeBase


class ShelfRetriever(BaseRetriever):
    """Searches some shelves. Metadata: file, document, start, end, heading, page, score."""

    knowledge: Any  # a KnowledgeBase; pydantic cannot check a protocol
    shelves: tuple[str, ...]
    k: int = 4

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Passage]:
        return [
            Passage(
                page_content=hit.text,
                metadata={
                    "file": hit.name,
                    "document": hit.document_id,
                    "start": hit.start,
                    "end": hit.end,
                    "heading": hit.heading,
                    "page": hit.page,
                    "score": hit.score,
                },
            )
            for hit in self.knowledge.search(self.shelves, query, k=self.k)
        ]


def add_passages(
    knowledge: KnowledgeBase, shelf: str, passages: Iterable[Passage]
) -> list[Document]:
    """Add what any LangChain loader returns: a document for each `source` in the metadata.

    Passages of one source are joined in their order by blank lines. KnowledgeError for one without a
    source; then nothing was added.
    """
    texts: dict[str, list[str]] = {}
    for passage in passages:
        source = str(passage.metadata.get("source") or "").strip()
        if not source:
            raise KnowledgeError("knowledge.passage_without_source")
        texts.setdefault(_build_file_name(source), []).append(passage.page_content)
    return [
        knowledge.add(shelf, name, "\n\n".join(parts).encode("utf-8", "replace"))
        for name, parts in texts.items()
    ]


def _build_file_name(source: str) -> str:
    """The last part of a path or URL, as a text file's name."""
    last = PureWindowsPath(PurePosixPath(source.split("?")[0]).name).name or "passage"
    return last if last.lower().endswith((".txt", ".md")) else f"{last}.txt"
