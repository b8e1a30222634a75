"""The interface of every knowledge base: documents go onto a shelf, citable spans of them come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from elysia.core.i18n import Text


@dataclass(frozen=True)
class Document:
    """A document on a shelf. `pages` is None for kinds of files without pages."""

    id: str
    shelf: str
    name: str
    characters: int
    spans: int
    at: float  # when it was added, in seconds since 1970
    pages: int | None = None


@dataclass(frozen=True)
class SearchHit:
    """A span that a search returned: characters `start` to `end` of its document's text.

    `lexical_rank` and `semantic_rank` are its places (from 1) among the hits by words and by meaning;
    None: it is not among those.
    """

    document_id: str
    name: str
    start: int
    end: int
    text: str
    score: float
    heading: str = ""
    page: int | None = None
    lexical_rank: int | None = None
    semantic_rank: int | None = None

    @property
    def explanation(self) -> Text:
        """Why it was found, for people: "words #1, meaning #2"."""
        ranks = {"lexical_rank": self.lexical_rank, "semantic_rank": self.semantic_rank}
        reasons = [Text(f"knowledge.{kind}", {"rank": n}) for kind, n in ranks.items() if n]
        return Text("knowledge.reasons", {"reasons": reasons})


class KnowledgeBase(Protocol):
    """A knowledge base. May be called from several threads.

    A shelf is a name for an owner's documents: 'character/elysia' or 'user/ID/elysia'. The caller
    decides which shelves somebody may see.
    """

    def add(
        self, shelf: str, name: str, content: bytes, progress: Callable[[float], None] | None = None
    ) -> Document:
        """Read, split and index a file. One of the same name is replaced, and only what changed is
        embedded. `progress` is called with the share that is done, up to 1. KnowledgeError when the
        file cannot be read; then nothing has changed.
        """

    def sync(self, shelf: str, folder: Path) -> tuple[int, int, int]:
        """Make the shelf equal to the folder: the numbers of documents (added or changed, removed,
        unchanged).
        """

    def documents(self, shelf: str) -> list[Document]:
        """A shelf's documents by name."""

    def text(self, shelf: str, document_id: str) -> str:
        """The whole text that spans refer to. KnowledgeError when it is not on the shelf."""

    def remove(self, shelf: str, document_id: str) -> None:
        """Remove a document from its shelf. KnowledgeError when it is not there."""

    def search(self, shelves: Sequence[str], question: str, *, k: int = 4) -> list[SearchHit]:
        """The best `k` spans of these shelves for a question, best first."""

    def close(self) -> None:
        """Release files; the database belongs to whoever opened it."""
