"""One index over texts: searched by words, and by meaning where there is an embedding model.

The index is derived: the owner of the texts keeps them in a database and can add them all again.
Texts lie under scopes, and a search sees only the scopes that it names.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from elysia.core.errors import StoreError
from elysia.core.files import write_atomic
from elysia.retrieval.bm25 import Bm25Index, IndexDamagedError
from elysia.retrieval.embedders import Embedder
from elysia.retrieval.vector import VectorIndex

Result = TypeVar("Result")
# Called to get all of an owner's texts: (scope, [(id, text), ...]), in parts of one scope each.
AllTexts = Callable[[], Iterable[tuple[str, Sequence[tuple[str, str]]]]]
log = logging.getLogger(__name__)

FORMAT_VERSION = "2"  # of the terms and fields; an index of another version is rebuilt
FUSION_DEPTH = 50  # hits of each kind that are fused


@dataclass(frozen=True)
class IndexHit:
    """A text that a search returned. Scores compare within one search only.

    `lexical_rank` and `semantic_rank` are its places (from 1) among the hits by words and by meaning;
    None: it is not among those.
    """

    id: str
    score: float
    lexical_rank: int | None = None
    semantic_rank: int | None = None


class HybridIndex:
    """Texts under scopes. May be called from several threads; opened by `open_index`.

    `needs_refill` is true while the index may lack texts (it was new, damaged, or of another version):
    then the owner adds every text again, by `refill`, or in any order by `add` and then
    `mark_complete`.
    """

    def __init__(self, folder: Path, embedder: Embedder | None, server: str | None) -> None:
        self._folder = folder
        self._embedder = embedder
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._filling: threading.Thread | None = None
        self._gave_up = self._closing = False
        self._bm25 = self._open_words()
        self._vectors = self._open_vectors(server) if embedder else None

    @property
    def needs_refill(self) -> bool:
        """Whether the owner has to add its texts again."""
        return self._read_mark("words") != FORMAT_VERSION or (
            self._vectors is not None and self._read_mark("vectors") != self._vectors_version()
        )

    def mark_complete(self) -> None:
        """The owner has added everything it has: `needs_refill` is false from now on."""
        write_atomic(self._folder / "words.whole", FORMAT_VERSION)
        if self._vectors is not None:
            write_atomic(self._folder / "vectors.whole", self._vectors_version())

    def refill(self, all_texts: AllTexts) -> None:
        """Add what the owner has: words before this returns, vectors afterwards, in a thread.

        `all_texts` is called once for each of the two.
        """
        if self._read_mark("words") != FORMAT_VERSION:
            for scope, items in all_texts():
                self._with_words(partial(Bm25Index.add, parts=[(scope, items)]))
            write_atomic(self._folder / "words.whole", FORMAT_VERSION)
        is_filling = self._filling is not None and self._filling.is_alive()
        if self.needs_refill and not self._gave_up and not is_filling:
            self._filling = threading.Thread(
                target=self._fill_vectors, args=(all_texts,), name="vectors", daemon=True
            )
            self._filling.start()

    def wait(self) -> None:
        """Wait until a refill of the vectors has ended."""
        if self._filling is not None:
            self._filling.join()

    def add(self, scope: str, items: Sequence[tuple[str, str]]) -> None:
        """Add (id, text) pairs; an existing id is replaced."""
        self.add_all([(scope, items)])

    def add_all(self, parts: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        """Add (id, text) pairs of several scopes, the words of all in one commit."""
        parts = [(scope, items) for scope, items in parts if items]
        if parts:
            self._with_words(lambda words: words.add(parts))
        for scope, items in parts:
            self._with_vectors(partial(VectorIndex.add, scope=scope, items=items))

    def remove(self, scope: str, ids: Sequence[str]) -> None:
        """Remove texts; unknown ids are ignored."""
        if ids:
            self._with_words(lambda words: words.remove(scope, ids))
            self._with_vectors(lambda vectors: vectors.remove(scope, ids))

    def remove_scope(self, scope: str) -> None:
        """Remove every text of a scope."""
        self._with_words(lambda words: words.remove_scope(scope))
        self._with_vectors(lambda vectors: vectors.remove_scope(scope))

    def search(self, scopes: Sequence[str], question: str, *, k: int) -> list[IndexHit]:
        """The best `k` texts of these scopes for a question, best first."""
        scopes = list(dict.fromkeys(scopes))
        depth = k if self._vectors is None else max(k, FUSION_DEPTH)
        by_words = self._with_words(lambda words: words.search(scopes, question, depth))
        if self._vectors is None:
            return [IndexHit(id, score, rank) for rank, (id, score) in enumerate(by_words, 1)]
        return fuse_rankings(by_words, self._search_vectors(scopes, question, depth))[:k]

    def ids(self, scope: str) -> set[str]:
        """Every id of a scope."""
        return self._with_words(lambda words: words.ids(scope))

    def count(self, scope: str) -> int:
        """How many texts a scope has."""
        return self._with_words(lambda words: words.count(scope))

    def close(self) -> None:
        """Release the folder."""
        self._closing = True
        self.wait()
        if self._vectors is not None:
            self._vectors.close()

    def _fill_vectors(self, all_texts: AllTexts) -> None:
        log.info("Embedding every text of %s; search goes by words meanwhile.", self._folder)
        try:
            for scope, items in all_texts():
                with self._lock:
                    if self._vectors is None or self._closing:
                        return
                    self._vectors.add(scope, items)
            write_atomic(self._folder / "vectors.whole", self._vectors_version())
        except Exception as error:
            self._gave_up = True
            self._warn_once(f"The vectors were not computed ({error}); the next start tries again.")

    def _with_words(self, act: Callable[[Bm25Index], Result]) -> Result:
        """Run `act` on the word index; if that is damaged, on a new one that `needs_refill`."""
        try:
            return act(self._bm25)
        except IndexDamagedError as error:
            self._mark_damaged(error)
        try:
            self._bm25 = self._open_words()
            return act(self._bm25)
        except IndexDamagedError as error:
            raise StoreError(
                "retrieval.index_unusable", folder=self._folder, fault=error
            ) from error

    def _search_vectors(
        self, scopes: Sequence[str], question: str, k: int
    ) -> list[tuple[str, float]]:
        assert self._vectors is not None
        try:
            return self._vectors.search(scopes, question, k)
        except Exception as error:
            self._warn_once(
                f"The vectors cannot be searched ({error}); search goes by words for now."
            )
            self._clear_mark("vectors")
            return []

    def _with_vectors(self, change: Callable[[VectorIndex], None]) -> None:
        """Repeat a change of the words in the vectors; one that fails is made up at the next start."""
        if self._vectors is None:
            self._clear_mark("vectors")
            return
        try:
            with self._lock:  # Chroma's folder bears one writer
                change(self._vectors)
        except Exception as error:
            self._warn_once(
                f"The vectors were not written ({error}); the next start makes up for it."
            )
            self._clear_mark("vectors")

    def _open_words(self) -> Bm25Index:
        folder = self._folder / "words"
        if self._read_mark("words") == FORMAT_VERSION:
            try:
                if not (folder / "meta.json").is_file():
                    raise IndexDamagedError("its files are missing")
                return Bm25Index(folder)
            except IndexDamagedError as error:
                self._mark_damaged(error)
        shutil.rmtree(folder, ignore_errors=True)
        return Bm25Index(folder)

    def _open_vectors(self, server: str | None) -> VectorIndex | None:
        assert self._embedder is not None
        try:
            vectors = VectorIndex(self._folder / "vectors", self._embedder, server)
        except StoreError as error:
            self._warn_once(str(error))
            return None
        if vectors.was_reset:
            self._clear_mark("vectors")
        return vectors

    def _mark_damaged(self, error: IndexDamagedError) -> None:
        log.warning("The index %s is damaged (%s) and is rebuilt.", self._folder, error)
        self._clear_mark("words")

    def _vectors_version(self) -> str:
        assert self._embedder is not None
        return f"{FORMAT_VERSION} {self._embedder.name} {self._embedder.dimensions}"

    # A file beside each part says that it is complete, and of which version.

    def _read_mark(self, part: str) -> str | None:
        try:
            return (self._folder / f"{part}.whole").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    def _clear_mark(self, part: str) -> None:
        (self._folder / f"{part}.whole").unlink(missing_ok=True)

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message)


def open_index(
    folder: Path, embedder: Embedder | None = None, *, server: str | None = None
) -> HybridIndex:
    """The index in a folder of its own; `server` is the URL of a Chroma server for the vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    return HybridIndex(folder, embedder, server)


def fuse_rankings(
    by_words: Sequence[tuple[str, float]], by_meaning: Sequence[tuple[str, float]]
) -> list[IndexHit]:
    """Two rankings of (id, score) as one, best first. A text's score is the sum of two shares: its
    BM25 relative to the best one's, and how far its cosine is on the way from the last one's to 1.

    A model that does not know the language finds all texts about equally near, so it changes little;
    reciprocal rank fusion would trust its order. Dividing by the best cosine instead of 1 would as
    well, and the plain difference would depend on how close together a model puts all texts.

    >>> [hit.id for hit in fuse_rankings([("a", 9.0), ("b", 8.0)], [("b", 0.9), ("c", 0.6)])]
    ['b', 'a', 'c']
    """
    best = by_words[0][1] if by_words else 1.0
    last = by_meaning[-1][1] if len(by_meaning) > 1 else 0.0
    span = max(1.0 - last, 1e-6)
    scores = {identity: score / best for identity, score in by_words}
    for identity, cosine in by_meaning:
        scores[identity] = scores.get(identity, 0.0) + (cosine - last) / span
    lexical = {identity: rank for rank, (identity, _) in enumerate(by_words, 1)}
    semantic = {identity: rank for rank, (identity, _) in enumerate(by_meaning, 1)}
    return [
        IndexHit(identity, scores[identity], lexical.get(identity), semantic.get(identity))
        for identity in sorted(scores, key=lambda identity: -scores[identity])
    ]
