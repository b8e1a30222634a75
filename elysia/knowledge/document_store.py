"""Documents on shelves: stored in the database, found through an index that is derived from them.

The database is the source of truth. New chunks enter the index before the database and leave it after,
so a kill in between leaves at worst ids without a row; a search skips those, and the next start removes
them.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from elysia.core.errors import KnowledgeError
from elysia.knowledge.base import Document, SearchHit
from elysia.knowledge.chunking import split_chunks
from elysia.knowledge.document_repository import DocumentRepository, StoredChunk, get_indexed_text
from elysia.knowledge.readers import READERS, ParsedText
from elysia.knowledge.sandbox import MAX_FILE, is_valid_name, read_file
from elysia.retrieval.embedders import Embedder
from elysia.retrieval.index import open_index
from elysia.store.database import Database
from elysia.store.tables import new_id

log = logging.getLogger(__name__)

MAX_SHELF_NAME = 255  # characters
BATCH_CHUNKS = 128  # chunks handed to the index at once; progress is reported after each batch
BATCH_CHARACTERS = 1_000_000  # of files that are written together; each write takes about 0.1 s


@dataclass(frozen=True)
class _ParsedFile:
    """A file that was read and is not stored yet."""

    name: str
    sha256: str
    source: ParsedText


@dataclass(frozen=True)
class _ChunkChanges:
    """A document's chunks compared with those that are stored."""

    unchanged: list[StoredChunk]
    new: list[StoredChunk]
    removed: list[str]  # ids


def open_document_store(
    database: Database, folder: Path, embedder: Embedder | None = None, *, server: str | None = None
) -> DocumentStore:
    """The knowledge base in a database, with its index in a folder of its own.

    `server` is the URL of a Chroma server; without one, vectors are stored in the folder.
    """
    return DocumentStore(database, folder, embedder, server)


class DocumentStore:
    """A knowledge base; see `base.KnowledgeBase`. `close` when done."""

    def __init__(
        self, database: Database, folder: Path, embedder: Embedder | None, server: str | None
    ) -> None:
        self._repository = DocumentRepository(database)
        self._index = open_index(folder, embedder, server=server)
        self._change_lock = threading.RLock()
        self._reconcile_index()

    def add(
        self, shelf: str, name: str, content: bytes, progress: Callable[[float], None] | None = None
    ) -> Document:
        """Read, split and index a file; one of the same name is replaced. See `base.KnowledgeBase`."""
        unchanged = self._find_unchanged(shelf, name, content)
        if unchanged is None:
            self._store(shelf, [_parse_file(name, content)], progress)
        return unchanged or self._repository.get(shelf, self._get_or_create_id(shelf, name))

    def add_all(
        self, shelf: str, files: Iterable[tuple[str, Callable[[], bytes]]]
    ) -> Iterator[tuple[str, Document | KnowledgeError]]:
        """Add several files, by name and a function that reads the bytes, written together where `add`
        writes each. In their order, each with its document or why it was refused.
        """
        pending: list[tuple[str, _ParsedFile | Document | KnowledgeError]] = []
        for name, read in files:
            is_repeated = name in [other for other, _ in pending]
            if is_repeated or _count_characters(pending) > BATCH_CHARACTERS:
                yield from self._store_pending(shelf, pending)
                pending = []
            try:
                content = read()
                unchanged = self._find_unchanged(shelf, name, content)
                pending.append((name, unchanged or _parse_file(name, content)))
            except KnowledgeError as error:
                pending.append((name, error))
            except OSError:  # what was read before is stored all the same
                self._store(shelf, _parsed_files(pending))
                raise
        yield from self._store_pending(shelf, pending)

    def sync(self, shelf: str, folder: Path) -> tuple[int, int, int]:
        """Make the shelf equal to the folder: the numbers of documents (added or changed, removed,
        unchanged).

        Files of other kinds and hidden ones are ignored; one that cannot be read is logged and its
        document stays as it was. KnowledgeError when there is no such folder.
        """
        if not folder.is_dir():
            raise KnowledgeError("knowledge.no_folder", folder=folder)
        files = {
            file.name: file
            for file in sorted(folder.iterdir())
            if file.is_file() and is_valid_name(file.name) and file.suffix.lower() in READERS
        }
        before = self._repository.get_checksums(shelf)
        changed_files = [
            (name, file.read_bytes)
            for name, file in files.items()
            if _is_changed(file, before.get(name))
        ]
        changed = 0
        for _, outcome in self.add_all(shelf, changed_files):
            if isinstance(outcome, KnowledgeError):
                log.warning("%s", outcome)
            else:
                changed += 1
        removed = [document for name, (document, _) in before.items() if name not in files]
        with self._change_lock:
            ids = [id for document in removed for id in self._repository.remove(document)]
            self._index.remove(shelf, ids)
        return changed, len(removed), len(files) - changed

    def documents(self, shelf: str) -> list[Document]:
        """A shelf's documents by name."""
        return self._repository.list_documents(shelf)

    def shelves(self) -> list[str]:
        """Every shelf that has documents. For operators, not for users."""
        return list(self._repository.count_chunks())

    def text(self, shelf: str, document_id: str) -> str:
        """The whole text that spans refer to. KnowledgeError when it is not on the shelf."""
        return self._repository.get_text(shelf, document_id)

    def remove(self, shelf: str, document_id: str) -> None:
        """Remove a document from its shelf. KnowledgeError when it is not there."""
        with self._change_lock:
            self._repository.get(shelf, document_id)
            self._index.remove(shelf, self._repository.remove(document_id))

    def search(self, shelves: Sequence[str], question: str, *, k: int = 4) -> list[SearchHit]:
        """The best `k` spans of these shelves for a question, best first."""
        self._refill_index()
        # Some more, since an id may have no row for a moment.
        hits = self._index.search(shelves, question, k=k + 8)
        # The shelf is checked again: access rights must not rest on a derived index.
        rows = self._repository.fetch_chunks(list(shelves), [hit.id for hit in hits])
        return [
            SearchHit(
                document_id=row.document_id,
                name=row.name,
                start=row.start,
                end=row.end,
                text=row.text,
                score=hit.score,
                heading=row.heading,
                page=row.page,
                lexical_rank=hit.lexical_rank,
                semantic_rank=hit.semantic_rank,
            )
            for hit, row in [(hit, rows[hit.id]) for hit in hits if hit.id in rows][:k]
        ]

    def wait(self) -> None:
        """Wait until an index that is being rebuilt is complete."""
        self._index.wait()

    def close(self) -> None:
        """Close the index; the database belongs to whoever opened it."""
        self._index.close()

    def _compare_chunks(self, document: str, source: ParsedText) -> _ChunkChanges:
        """A chunk whose indexed text is stored keeps its id, so it is not embedded again."""
        free: dict[str, list[str]] = {}
        for identity, checksum in self._repository.get_chunk_checksums(document):
            free.setdefault(checksum, []).append(identity)
        unchanged: list[StoredChunk] = []
        new: list[StoredChunk] = []
        for chunk in split_chunks(source):
            checksum = hashlib.sha256(get_indexed_text(source.text, chunk).encode()).hexdigest()
            if free.get(checksum):
                unchanged.append(StoredChunk(free[checksum].pop(), chunk, checksum))
            else:
                new.append(StoredChunk(new_id(), chunk, checksum))
        return _ChunkChanges(unchanged, new, [id for ids in free.values() for id in ids])

    def _find_unchanged(self, shelf: str, name: str, content: bytes) -> Document | None:
        """The document of that name, if it was made from the same bytes."""
        if not shelf or len(shelf) > MAX_SHELF_NAME or not shelf.isprintable():
            raise KnowledgeError("knowledge.bad_shelf_name", shelf=repr(shelf[:80]))
        stored = self._repository.get_checksum(shelf, name)
        if stored is None or stored[1] != hashlib.sha256(content).hexdigest():
            return None
        return self._repository.get(shelf, stored[0])

    def _get_or_create_id(self, shelf: str, name: str) -> str:
        stored = self._repository.get_checksum(shelf, name)
        return stored[0] if stored is not None else new_id()

    def _store_pending(
        self, shelf: str, pending: Sequence[tuple[str, _ParsedFile | Document | KnowledgeError]]
    ) -> Iterator[tuple[str, Document | KnowledgeError]]:
        """Store what was read; the same list with documents in its place."""
        self._store(shelf, _parsed_files(pending))
        for name, item in pending:
            if isinstance(item, _ParsedFile):
                item = self._repository.get(shelf, self._get_or_create_id(shelf, name))
            yield name, item

    def _store(
        self,
        shelf: str,
        files: Sequence[_ParsedFile],
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Store files: their new chunks enter the index together, then each the database."""
        with self._change_lock:
            self._refill_index()
            ids = [self._get_or_create_id(shelf, file.name) for file in files]
            changes = [
                self._compare_chunks(id, file.source) for id, file in zip(ids, files, strict=True)
            ]
            texts = [
                (stored.id, get_indexed_text(file.source.text, stored.chunk))
                for file, change in zip(files, changes, strict=True)
                for stored in change.new
            ]
            not_stored = {identity for identity, _ in texts}
            removed: list[str] = []
            try:
                self._add_to_index(shelf, texts, progress)
                for id, file, change in zip(ids, files, changes, strict=True):
                    chunks = change.unchanged + change.new
                    self._repository.put(id, shelf, file.name, file.sha256, file.source, chunks)
                    not_stored -= {stored.id for stored in change.new}
                    removed += change.removed
            finally:
                self._index.remove(shelf, [*removed, *not_stored])

    def _add_to_index(
        self, shelf: str, texts: Sequence[tuple[str, str]], progress: Callable[[float], None] | None
    ) -> None:
        step = BATCH_CHUNKS if progress else max(len(texts), 1)
        for start in range(0, len(texts), step):
            self._index.add(shelf, texts[start : start + step])
            if progress:
                progress(min((start + step) / len(texts), 1.0))

    def _refill_index(self) -> None:
        """Fill an index that was new or damaged from the database."""
        # A search does not wait for a thread that is changing something: that thread refills it.
        if self._index.needs_refill and self._change_lock.acquire(blocking=False):
            try:
                self._index.refill(self._repository.iter_texts)
            finally:
                self._change_lock.release()

    def _reconcile_index(self) -> None:
        """Make the index agree with the database, whatever happened since the last start."""
        self._refill_index()
        for shelf, count in self._repository.count_chunks().items():
            if self._index.count(shelf) == count:
                continue
            stored = dict(item for _, items in self._repository.iter_texts(shelf) for item in items)
            indexed = self._index.ids(shelf)
            self._index.remove(shelf, sorted(indexed - stored.keys()))
            self._index.add(shelf, [(id, stored[id]) for id in stored.keys() - indexed])


def _parse_file(name: str, content: bytes) -> _ParsedFile:
    return _ParsedFile(name, hashlib.sha256(content).hexdigest(), read_file(name, content))


def _parsed_files(pending: Sequence[tuple[str, object]]) -> list[_ParsedFile]:
    return [item for _, item in pending if isinstance(item, _ParsedFile)]


def _count_characters(pending: Sequence[tuple[str, object]]) -> int:
    return sum(len(file.source.text) for file in _parsed_files(pending))


def _is_changed(file: Path, before: tuple[str, str] | None) -> bool:
    """Whether a folder's file is new or changed, and small enough to be read."""
    if file.stat().st_size > MAX_FILE:
        log.warning("%s is larger than %d MB and is left out.", file, MAX_FILE >> 20)
        return False
    return before is None or before[1] != hashlib.sha256(file.read_bytes()).hexdigest()
