"""Documents and their chunks as rows of the database. Every query names the shelf as well."""

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

ShelfTexts = tuple[str, list[tuple[str, str]]]  # a shelf, and (chunk id, indexed text) pairs

# Every turn asks this. It is built once: SQLAlchemy takes longer to build it than SQLite to answer.
_CHUNK_TEXT = func.substr(documents.c.text, spans.c.start + 1, spans.c.end - spans.c.start)
_CHUNKS = (
    select(spans, documents.c.name, _CHUNK_TEXT.label("text"))
    .join(documents, documents.c.id == spans.c.document_id)
    .where(
        spans.c.id.in_(bindparam("the_ids", expanding=True)),
        documents.c.shelf.in_(bindparam("the_shelves", expanding=True)),
    )
)
# A document without its text, which may be long.
_DOCUMENTS = select(
    *(documents.c[name] for name in ("id", "shelf", "name", "sha256", "details", "created"))
)


@dataclass(frozen=True)
class StoredChunk:
    """A chunk with its id and the SHA-256 of its indexed text."""

    id: str
    chunk: Chunk
    sha256: str


class DocumentRepository:
    """The documents of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_documents(self, shelf: str) -> list[Document]:
        """A shelf's documents by name."""
        query = _DOCUMENTS.where(documents.c.shelf == shelf).order_by(documents.c.name)
        return [_build_document(row) for row in self._fetch(query)]

    def get_checksums(self, shelf: str) -> dict[str, tuple[str, str]]:
        """Document name to (id, SHA-256 of the file), of a shelf."""
        rows = self._fetch(_DOCUMENTS.where(documents.c.shelf == shelf))
        return {row.name: (row.id, row.sha256) for row in rows}

    def get_checksum(self, shelf: str, name: str) -> tuple[str, str] | None:
        """(id, SHA-256 of the file) of the document of a name."""
        query = _DOCUMENTS.where(documents.c.shelf == shelf, documents.c.name == name)
        return next(((row.id, row.sha256) for row in self._fetch(query)), None)

    def get(self, shelf: str, document: str) -> Document:
        """A document by id. KnowledgeError when it is not on the shelf."""
        query = _DOCUMENTS.where(documents.c.shelf == shelf, documents.c.id == document)
        return _build_document(self._fetch_existing(query))

    def get_text(self, shelf: str, document: str) -> str:
        """A document's whole text. KnowledgeError when it is not on the shelf."""
        query = select(documents.c.text).where(
            documents.c.shelf == shelf, documents.c.id == document
        )
        return str(self._fetch_existing(query).text)

    def count_chunks(self) -> dict[str, int]:
        """Every shelf that has documents, and how many chunks."""
        query = (
            select(documents.c.shelf, func.count(spans.c.id).label("chunks"))
            .outerjoin(spans, spans.c.document_id == documents.c.id)
            .group_by(documents.c.shelf)
            .order_by(documents.c.shelf)
        )
        return {row.shelf: row.chunks for row in self._fetch(query)}

    def get_chunk_checksums(self, document: str) -> list[tuple[str, str]]:
        """(id, SHA-256) of a document's chunks."""
        query = select(spans.c.id, spans.c.sha256).where(spans.c.document_id == document)
        return [(row.id, row.sha256) for row in self._fetch(query)]

    def put(
        self,
        document: str,
        shelf: str,
        name: str,
        sha256: str,
        source: ParsedText,
        chunks: Sequence[StoredChunk],
    ) -> None:
        """Store a document and its chunks in place of what was there, in one transaction."""
        details = {
            "characters": len(source.text),
            "spans": len(chunks),
            "pages": len(source.pages) or None,
        }
        row = {"sha256": sha256, "text": source.text, "details": details, "created": time.time()}
        rows = [
            {
                "id": stored.id,
                "document_id": document,
                "number": number,
                "start": stored.chunk.start,
                "end": stored.chunk.end,
                "heading": stored.chunk.heading,
                "page": stored.chunk.page,
                "sha256": stored.sha256,
            }
            for number, stored in enumerate(sorted(chunks, key=lambda item: item.chunk.start))
        ]
        with self._database.write() as connection:
            existing = update(documents).where(documents.c.id == document).values(row)
            if connection.execute(existing).rowcount == 0:
                new = insert(documents).values(id=document, shelf=shelf, name=name, **row)
                connection.execute(new)
            connection.execute(delete(spans).where(spans.c.document_id == document))
            connection.execute(insert(spans), rows)

    def remove(self, document: str) -> list[str]:
        """Delete a document; the ids of the chunks it had."""
        own = spans.c.document_id == document
        with self._database.write() as connection:
            ids = list(connection.execute(select(spans.c.id).where(own)).scalars())
            connection.execute(delete(spans).where(own))
            connection.execute(delete(documents).where(documents.c.id == document))
        return ids

    def fetch_chunks(self, shelves: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        """Chunk id to row, with the document's `name` and the chunk's `text`, of these shelves only."""
        if not ids:
            return {}
        values = {"the_ids": list(ids), "the_shelves": list(shelves)}
        with self._database.read() as connection:
            return {row.id: row for row in connection.execute(_CHUNKS, values)}

    def iter_texts(self, shelf: str | None = None) -> Iterator[ShelfTexts]:
        """What is indexed of all documents, or of a shelf's, one document at a time."""
        query = select(documents.c.id)
        if shelf is not None:
            query = query.where(documents.c.shelf == shelf)
        for (document,) in self._fetch(query):
            own = documents.c.id == document
            # No row where the document was removed since.
            for row in self._fetch(select(documents.c.shelf, documents.c.text).where(own)):
                chunks = self._fetch(select(spans).where(spans.c.document_id == document))
                yield row.shelf, [(chunk.id, get_indexed_text(row.text, chunk)) for chunk in chunks]

    def _fetch(self, query: Any) -> list[Any]:
        with self._database.read() as connection:
            return list(connection.execute(query))

    def _fetch_existing(self, query: Any) -> Any:
        rows = self._fetch(query)
        if not rows:
            raise KnowledgeError("knowledge.no_such_document")
        return rows[0]


def get_indexed_text(text: str, chunk: Any) -> str:
    """What a chunk is found by: its headings, which its text may not repeat, and its text."""
    own = text[chunk.start : chunk.end]
    return f"{chunk.heading}\n{own}" if chunk.heading else own


def _build_document(row: Any) -> Document:
    return Document(
        id=row.id,
        shelf=row.shelf,
        name=row.name,
        characters=row.details["characters"],
        spans=row.details["spans"],
        at=row.created,
        pages=row.details["pages"],
    )
