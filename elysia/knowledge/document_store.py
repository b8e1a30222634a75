"""Documents on shelves: kept in the database, found through an index that is derived from them.

The database is the truth. New spans enter the index before the database knows them and leave it
after, so a kill in between leaves at worst ids that lead nowhere; a search passes over those, and
the next start sweeps them out. Knows nothing of how files are read or spans found.
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
BATCH_CHUNKS = 128  # spans handed to the index at once; progress is told after each
BATCH_CHARACTERS = (
    1_000_000  # characters of files that are written together; each write costs a tenth of a second
)


@dataclass(frozen=True)
class _ParsedFile:
    """A file that was read and has no place yet."""

    name: str
    mark: str  # SHA-256 of the file
    source: ParsedText


def open_document_store(
    database: Database,
    folder: Path,
    embedder: Embedder | None = None,
    *,
    server: str | None = None,
) -> DocumentStore:
    """The knowledge base in a database, with its index in a folder of its own.

    `server` is the URL of a Chroma server; without one, vectors lie in the folder.
    """
    return DocumentStore(database, folder, embedder, server)


class DocumentStore:
    """A knowledge base; see `base.Knowledge`. `close` when done."""

    def __init__(
        self, database: Database, folder: Path, embedder: Embedder | None, server: str | None
    ) -> None:
        self._rows = DocumentRepository(database)
        self._index = open_index(folder, embedder, server=server)
        self._changing = threading.RLock()
        self._sweep()

    def add(
        self,
        shelf: str,
        name: str,
        content: bytes,
        progress: Callable[[float], None] | None = None,
    ) -> Document:
        """Read, split and index a file; one of that name is replaced. See `base.Knowledge`."""
        there = self._same(shelf, name, content)
        if there is None:
            self._keep(shelf, [_parse_file(name, content)], progress)
        return there or self._rows.one(shelf, self._id(shelf, name))

    def add_all(
        self, shelf: str, files: Iterable[tuple[str, Callable[[], bytes]]]
    ) -> Iterator[tuple[str, Document | KnowledgeError]]:
        """Several files by name and what reads them, written together where `add` writes each; in
        their order, each with its document or why it is none.
        """
        waiting: list[tuple[str, _ParsedFile | Document | KnowledgeError]] = []
        for name, content in files:
            if name in [one for one, _ in waiting] or _count_characters(waiting) > BATCH_CHARACTERS:
                yield from self._kept(shelf, waiting)
                waiting = []
            try:
                told = content()
                waiting.append((name, self._same(shelf, name, told) or _parse_file(name, told)))
            except KnowledgeError as error:
                waiting.append((name, error))
            except OSError:  # what was read before it is kept all the same
                self._keep(shelf, [one for _, one in waiting if isinstance(one, _ParsedFile)])
                raise
        yield from self._kept(shelf, waiting)

    def sync(self, shelf: str, folder: Path) -> tuple[int, int, int]:
        """Make the shelf what the folder is: (added or changed, removed, left as they were).

        Files of other kinds and hidden ones are passed over; one that cannot be read is logged, and
        stays as it was. KnowledgeError when there is no such folder.
        """
        if not folder.is_dir():
            raise KnowledgeError(f"There is no folder {folder}.")
        files = {
            file.name: file
            for file in sorted(folder.iterdir())
            if file.is_file() and is_valid_name(file.name) and file.suffix.lower() in READERS
        }
        before = self._rows.marks(shelf)
        wanted = [
            (name, file.read_bytes)
            for name, file in files.items()
            if _is_changed(file, before.get(name))
        ]
        changed = 0
        for _, made in self.add_all(shelf, wanted):
            if isinstance(made, KnowledgeError):
                log.warning("%s", made)
            else:
                changed += 1
        gone = [document for name, (document, _) in before.items() if name not in files]
        with self._changing:
            self._index.remove(shelf, [span for one in gone for span in self._rows.remove(one)])
        return changed, len(gone), len(files) - changed

    def documents(self, shelf: str) -> list[Document]:
        """A shelf's documents by name."""
        return self._rows.documents(shelf)

    def shelves(self) -> list[str]:
        """Every shelf that has documents. For whoever runs the place, not for its users."""
        return list(self._rows.shelves())

    def text(self, shelf: str, document_id: str) -> str:
        """The whole text that spans count in. KnowledgeError when it is not on the shelf."""
        return self._rows.text(shelf, document_id)

    def remove(self, shelf: str, document_id: str) -> None:
        """Take a document off its shelf. KnowledgeError when it is not on it."""
        with self._changing:
            self._rows.one(shelf, document_id)
            self._index.remove(shelf, self._rows.remove(document_id))

    def search(self, shelves: Sequence[str], question: str, *, k: int = 4) -> list[SearchHit]:
        """The best `k` spans of these shelves for a question, best first."""
        self._heal()
        # Some more, since an id may lead nowhere for a moment.
        hits = self._index.search(shelves, question, k=k + 8)
        # The shelf is asked for again: an index is derived, and nothing to rest a right on.
        rows = self._rows.found(list(shelves), [hit.id for hit in hits])
        found = [(hit, rows[hit.id]) for hit in hits if hit.id in rows]
        return [
            SearchHit(
                document_id=row.document_id,
                name=row.name,
                start=row.start,
                end=row.end,
                text=row.text,
                score=hit.score,
                why=hit.why,
                heading=row.heading,
                page=row.page,
            )
            for hit, row in found[:k]
        ]

    def wait(self) -> None:
        """Until an index that is being made anew is complete."""
        self._index.wait()

    def close(self) -> None:
        """Let go of the index; the database is its opener's."""
        self._index.close()

    def _compared(
        self, document: str, source: ParsedText
    ) -> tuple[list[StoredChunk], list[StoredChunk], list[str]]:
        """The spans that stay with their ids, the new ones, and the ids of what is gone."""
        free: dict[str, list[str]] = {}
        for identity, mark in self._rows.old_spans(document):
            free.setdefault(mark, []).append(identity)
        kept: list[StoredChunk] = []
        made: list[StoredChunk] = []
        for piece in split_chunks(source):
            mark = hashlib.sha256(get_indexed_text(source.text, piece).encode()).hexdigest()
            if free.get(mark):
                kept.append(StoredChunk(free[mark].pop(), piece, mark))
            else:
                made.append(StoredChunk(new_id(), piece, mark))
        return kept, made, [identity for left in free.values() for identity in left]

    def _same(self, shelf: str, name: str, content: bytes) -> Document | None:
        """The document of that name, when it is of this very file."""
        if not shelf or len(shelf) > MAX_SHELF_NAME or not shelf.isprintable():
            raise KnowledgeError(f"{shelf[:80]!r} cannot be the name of a shelf.")
        there = self._rows.mark(shelf, name)
        if there is None or there[1] != hashlib.sha256(content).hexdigest():
            return None
        return self._rows.one(shelf, there[0])

    def _id(self, shelf: str, name: str) -> str:
        there = self._rows.mark(shelf, name)
        return there[0] if there is not None else new_id()

    def _kept(
        self, shelf: str, waiting: Sequence[tuple[str, _ParsedFile | Document | KnowledgeError]]
    ) -> Iterator[tuple[str, Document | KnowledgeError]]:
        """The same with documents in place of what was read."""
        self._keep(shelf, [one for _, one in waiting if isinstance(one, _ParsedFile)])
        for name, one in waiting:
            if isinstance(one, _ParsedFile):
                yield name, self._rows.one(shelf, self._id(shelf, name))
            else:
                yield name, one

    def _keep(
        self,
        shelf: str,
        files: Sequence[_ParsedFile],
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Keep files: their new spans enter the index together, then the database knows them."""
        with self._changing:
            self._heal()
            ids = [self._id(shelf, file.name) for file in files]
            spans = [self._compared(id, one.source) for id, one in zip(ids, files, strict=True)]
            new = [
                (span.id, get_indexed_text(file.source.text, span.piece))
                for file, (_, made, _) in zip(files, spans, strict=True)
                for span in made
            ]
            lost, gone = {identity for identity, _ in new}, []
            try:
                self._put(shelf, new, progress)
                for id, file, (kept, made, old) in zip(ids, files, spans, strict=True):
                    self._rows.put(id, shelf, file.name, file.mark, file.source, kept + made)
                    lost -= {span.id for span in made}
                    gone += old
            finally:
                self._index.remove(shelf, [*gone, *lost])

    def _put(
        self,
        shelf: str,
        new: Sequence[tuple[str, str]],
        progress: Callable[[float], None] | None,
    ) -> None:
        step = BATCH_CHUNKS if progress else max(len(new), 1)
        for start in range(0, len(new), step):
            self._index.add(shelf, new[start : start + step])
            if progress:
                progress(min((start + step) / len(new), 1.0))

    def _heal(self) -> None:
        """Fill an index that was new or damaged from the database."""
        # A search does not wait for whoever is changing something: that one heals it, too.
        if self._index.needs_refill and self._changing.acquire(blocking=False):
            try:
                self._index.refill(self._rows.everything)
            finally:
                self._changing.release()

    def _sweep(self) -> None:
        """Make the index what the database says, whatever happened since."""
        self._heal()
        for shelf, count in self._rows.shelves().items():
            if self._index.count(shelf) == count:
                continue
            have = dict(item for _, items in self._rows.everything(shelf) for item in items)
            there = self._index.ids(shelf)
            self._index.remove(shelf, sorted(there - have.keys()))
            self._index.add(shelf, [(one, have[one]) for one in have.keys() - there])


def _parse_file(name: str, content: bytes) -> _ParsedFile:
    return _ParsedFile(name, hashlib.sha256(content).hexdigest(), read_file(name, content))


def _count_characters(waiting: Sequence[tuple[str, object]]) -> int:
    return sum(len(one.source.text) for _, one in waiting if isinstance(one, _ParsedFile))


def _is_changed(file: Path, before: tuple[str, str] | None) -> bool:
    """Whether a folder's file is new or another one, and may be read."""
    if file.stat().st_size > MAX_FILE:
        log.warning("%s has more than %d MB and is left out.", file, MAX_FILE >> 20)
        return False
    return before is None or before[1] != hashlib.sha256(file.read_bytes()).hexdigest()
