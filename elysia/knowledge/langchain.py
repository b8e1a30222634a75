"""LangChain at the edges: a knowledge base as one of its retrievers, its documents as ours.

Knows nothing of any implementation of a knowledge base.
"""

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
    """Some shelves of a knowledge base. Metadata: file, document, start, end, heading, page, score."""

    knowledge: Any  # a Knowledge; pydantic cannot look into a Protocol
    shelves: tuple[str, ...]
    k: int = 4

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Passage]:
        return [
            Passage(
                page_content=one.text,
                metadata={
                    "file": one.name,
                    "document": one.document_id,
                    "start": one.start,
                    "end": one.end,
                    "heading": one.heading,
                    "page": one.page,
                    "score": one.score,
                },
            )
            for one in self.knowledge.search(self.shelves, query, k=self.k)
        ]


def add_passages(
    knowledge: KnowledgeBase, shelf: str, passages: Iterable[Passage]
) -> list[Document]:
    """Put what any LangChain loader gives on a shelf: a document for each `source` in its metadata.

    Passages of one source stand in their order, a blank line between. KnowledgeError for one
    without a source; then nothing was added.
    """
    texts: dict[str, list[str]] = {}
    for passage in passages:
        source = str(passage.metadata.get("source") or "").strip()
        if not source:
            raise KnowledgeError("A passage without `source` in its metadata cannot be cited.")
        texts.setdefault(_build_file_name(source), []).append(passage.page_content)
    return [
        knowledge.add(shelf, name, "\n\n".join(parts).encode("utf-8", "replace"))
        for name, parts in texts.items()
    ]


def _build_file_name(source: str) -> str:
    """The last part of a path or URL, as a text file's name."""
    last = PureWindowsPath(PurePosixPath(source.split("?")[0]).name).name or "passage"
    return last if last.lower().endswith((".txt", ".md")) else f"{last}.txt"
