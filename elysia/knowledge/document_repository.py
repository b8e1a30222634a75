"""The rows of documents and their spans. Every query asks for the shelf, too.

Knows nothing of files, indexes or scores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from elysia.core.errors import KnowledgeError
from elysia.knowledge.base import Document
from elysia.knowledge.chunking import Chunk
from elysia.knowledge.readers import ParsedText
from elysia.store.database import Database
from elysia.store.tables import documents, spans

# Every turn asks this; SQLAlchemy takes longer to put it together than SQLite to answer it.
_CHUNK_TEXT = func.substr(
    documents.c.text, spans.c.start + 1, spans.c.end - spans.c.start
)  # fmt: skip
SELECT_CHUNKS = (
    select(spans, documents.c.name, _CHUNK_TEXT.label("text"))
    .join(documents, documents.c.id == spans.c.document_id)
    .where(
        spans.c.id.in_(bindparam("the_ids", expanding=True)),
        documents.c.shelf.in_(bindparam("the_shelves", expanding=True)),
    )
)
ShelfTexts = tuple[str, list[tuple[str, str]]]  # a shelf, and ids with what is indexed


@dataclass(frozen=True)
class StoredChunk:
    """A piece of a document with its id and the SHA-256 of what it is found by."""

    id: str
    piece: Chunk
    sha256: str


class DocumentRepository:
    """Documents in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def documents(self, shelf: str) -> list[Document]:
        """A shelf's documents by name."""
        query = _select_documents().where(documents.c.shelf == shelf).order_by(documents.c.name)
        return [_build_document(row) for row in self._all(query)]

    def marks(self, shelf: str) -> dict[str, tuple[str, str]]:
        """Name to (id, SHA-256 of the file) of a shelf."""
        query = _select_documents().where(documents.c.shelf == shelf)
        return {row.name: (row.id, row.sha256) for row in self._all(query)}

    def mark(self, shelf: str, name: str) -> tuple[str, str] | None:
        """(id, SHA-256 of the file) of a name."""
        query = _select_documents().where(documents.c.shelf == shelf, documents.c.name == name)
        rows = self._all(query)
        return (rows[0].id, rows[0].sha256) if rows else None

    def one(self, shelf: str, document: str) -> Document:
        """A document. KnowledgeError when it is not on the shelf."""
        query = _select_documents().where(documents.c.shelf == shelf, documents.c.id == document)
        rows = self._all(query)
        if not rows:
            raise KnowledgeError("There is no such document on this shelf.")
        return _build_document(rows[0])

    def text(self, shelf: str, document: str) -> str:
        """Its whole text. KnowledgeError when it is not on the shelf."""
        query = select(documents.c.text).where(
            documents.c.shelf == shelf, documents.c.id == document
        )
        rows = self._all(query)
        if not rows:
            raise KnowledgeError("There is no such document on this shelf.")
        return str(rows[0].text)

    def shelves(self) -> dict[str, int]:
        """Every shelf that has documents, and how many spans."""
        query = (
            select(documents.c.shelf, func.count(spans.c.id).label("many"))
            .outerjoin(spans, spans.c.document_id == documents.c.id)
            .group_by(documents.c.shelf)
            .order_by(documents.c.shelf)
        )
        return {row.shelf: row.many for row in self._all(query)}

    def old_spans(self, document: str) -> list[tuple[str, str]]:
        """(id, SHA-256) of a document's spans."""
        query = select(spans.c.id, spans.c.sha256).where(spans.c.document_id == document)
        return [(row.id, row.sha256) for row in self._all(query)]

    def put(
        self,
        document: str,
        shelf: str,
        name: str,
        sha256: str,
        source: ParsedText,
        found: Sequence[StoredChunk],
    ) -> None:
        """The document and its spans, in place of what was there; all of it or nothing."""
        details = {
            "characters": len(source.text),
            "spans": len(found),
            "pages": len(source.pages) or None,
        }
        row = {"sha256": sha256, "text": source.text, "details": details, "created": time.time()}
        rows = [
            {
                "id": span.id,
                "document_id": document,
                "number": number,
                "start": span.piece.start,
                "end": span.piece.end,
                "heading": span.piece.heading,
                "page": span.piece.page,
                "sha256": span.sha256,
            }
            for number, span in enumerate(sorted(found, key=lambda span: span.piece.start))
        ]
        with self._database.write() as connection:
            there = update(documents).where(documents.c.id == document).values(row)
            if connection.execute(there).rowcount == 0:
                new = insert(documents).values(id=document, shelf=shelf, name=name, **row)
                connection.execute(new)
            connection.execute(delete(spans).where(spans.c.document_id == document))
            connection.execute(insert(spans), rows)

    def remove(self, document: str) -> list[str]:
        """Take a document out; the ids of its spans."""
        own = spans.c.document_id == document
        with self._database.write() as connection:
            gone = list(connection.execute(select(spans.c.id).where(own)).scalars())
            connection.execute(delete(spans).where(own))
            connection.execute(delete(documents).where(documents.c.id == document))
        return gone

    def found(self, shelves: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        """Id to row, with the document's `name` and the span's `text`, of those on these shelves."""
        if not ids:
            return {}
        values = {"the_ids": list(ids), "the_shelves": list(shelves)}
        with self._database.read() as connection:
            return {row.id: row for row in connection.execute(SELECT_CHUNKS, values)}

    def everything(self, shelf: str | None = None) -> Iterator[ShelfTexts]:
        """What is indexed of every document, or of a shelf's, one document at a time."""
        query = select(documents.c.id)
        if shelf is not None:
            query = query.where(documents.c.shelf == shelf)
        for (document,) in self._all(query):
            own = documents.c.id == document
            rows = self._all(select(documents.c.shelf, documents.c.text).where(own))
            for where, text in rows:
                query = select(spans).where(spans.c.document_id == document)
                yield where, [(row.id, get_indexed_text(text, row)) for row in self._all(query)]

    def _all(self, query: Any) -> list[Any]:
        with self._database.read() as connection:
            return list(connection.execute(query))


def get_indexed_text(text: str, piece: Any) -> str:
    """What a span is found by: its headings, which it may not repeat, and itself."""
    own = text[piece.start : piece.end]
    return f"{piece.heading}\n{own}" if piece.heading else own


def _select_documents() -> Any:
    """A document without its text, which may be long."""
    there = documents.c
    return select(there.id, there.shelf, there.name, there.sha256, there.details, there.created)


def _build_document(row: Any) -> Document:
    said = row.details
    return Document(
        id=row.id,
        shelf=row.shelf,
        name=row.name,
        characters=said["characters"],
        spans=said["spans"],
        at=row.created,
        pages=said["pages"],
    )
