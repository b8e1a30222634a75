"""What every knowledge base is: documents go onto a shelf, spans of them come out, citable.

Knows nothing of any implementation, of prompts or of who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Document:
    """A document on a shelf. `pages` is None where its kind has none."""

    id: str
    shelf: str
    name: str
    characters: int
    spans: int
    at: float
    pages: int | None = None


@dataclass(frozen=True)
class SearchHit:
    """A span that was found: characters `start` to `end` of its document's text."""

    document_id: str
    name: str
    start: int
    end: int
    text: str
    score: float
    why: str
    heading: str = ""
    page: int | None = None


class KnowledgeBase(Protocol):
    """A knowledge base. May be called from several threads.

    A shelf is a text that says whose documents they are: 'character/elysia' or 'user/ID/elysia'.
    Whoever calls decides which shelves somebody may see.
    """

    def add(
        self,
        shelf: str,
        name: str,
        content: bytes,
        progress: Callable[[float], None] | None = None,
    ) -> Document:
        """Read, split and index a file; one of that name is replaced, and only what changed is
        embedded. KnowledgeError with a sentence when it cannot be read; then nothing has changed.
        """

    def sync(self, shelf: str, folder: Path) -> tuple[int, int, int]:
        """Make the shelf what the folder is: (added or changed, removed, left as they were)."""

    def documents(self, shelf: str) -> list[Document]:
        """A shelf's documents by name."""

    def text(self, shelf: str, document_id: str) -> str:
        """The whole text that spans count in. KnowledgeError when it is not on the shelf."""

    def remove(self, shelf: str, document_id: str) -> None:
        """Take a document off its shelf. KnowledgeError when it is not on it."""

    def search(self, shelves: Sequence[str], question: str, *, k: int = 4) -> list[SearchHit]:
        """The best `k` spans of these shelves for a question, best first."""

    def close(self) -> None:
        """Let go of files and connections; the database is its opener's."""
