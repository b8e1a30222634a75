"""One index over texts: found by words, and by meaning where there is an embedding model.

Derived: whoever owns the texts keeps them in a database and can put them all in again. Texts lie
under scopes, and a search sees those that it names and no other. Knows nothing of what they are.
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
# Called for all of an owner's texts, in parts of one scope each.
AllTexts = Callable[[], Iterable[tuple[str, Sequence[tuple[str, str]]]]]
log = logging.getLogger(__name__)

FORMAT_VERSION = "2"  # of the terms and the fields; another one is built anew
FUSION_DEPTH = 50  # hits of each kind that are fused


@dataclass(frozen=True)
class IndexHit:
    """A text that was found. Scores compare within one search; `why` is for people."""

    id: str
    score: float
    why: str


class HybridIndex:
    """Texts under scopes. May be called from several threads; made by `open_index`.

    `fresh` is true while the index may lack texts (it was new, damaged, or of another form): then
    the owner adds every text again, by `refill`, or in any order by `add` and then `filled`.
    """

    def __init__(self, folder: Path, embedder: Embedder | None, server: str | None) -> None:
        self._folder = folder
        self._embedder = embedder
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._filling: threading.Thread | None = None
        self._gave_up = self._closing = False
        self._bm25 = self._open_words()
        self._vectors = self._open_vectors(server) if embedder else None

    @property
    def needs_refill(self) -> bool:
        """Whether the owner has to add its texts again."""
        return self._mark("words") != FORMAT_VERSION or (
            self._vectors is not None and self._mark("vectors") != self._vectors_form()
        )

    def mark_complete(self) -> None:
        """The owner has added everything it has: `fresh` is false from now on."""
        write_atomic(self._folder / "words.whole", FORMAT_VERSION)
        if self._vectors is not None:
            write_atomic(self._folder / "vectors.whole", self._vectors_form())

    def refill(self, everything: AllTexts) -> None:
        """Add what the owner has: words before this returns, vectors after it, in a thread.

        `everything` is called for each of the two and gives (scope, [(id, text), ...]) in parts.
        """
        if self._mark("words") != FORMAT_VERSION:
            for scope, items in everything():
                self._words(partial(Bm25Index.add, parts=[(scope, items)]))
            write_atomic(self._folder / "words.whole", FORMAT_VERSION)
        if (
            self.needs_refill
            and not self._gave_up
            and (self._filling is None or not self._filling.is_alive())
        ):
            self._filling = threading.Thread(
                target=self._fill_vectors, args=(everything,), name="vectors", daemon=True
            )
            self._filling.start()

    def wait(self) -> None:
        """Until vectors that are being filled are complete."""
        if self._filling is not None:
            self._filling.join()

    def add(self, scope: str, items: Sequence[tuple[str, str]]) -> None:
        """Put (id, text) in; an id that is there is replaced."""
        self.add_all([(scope, items)])

    def add_all(self, parts: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        """Put (id, text) of several scopes in, the words of all in one write."""
        parts = [(scope, items) for scope, items in parts if items]
        if parts:
            self._words(lambda words: words.add(parts))
        for scope, items in parts:
            self._also(partial(VectorIndex.add, scope=scope, items=items))

    def remove(self, scope: str, ids: Sequence[str]) -> None:
        """Take texts out; ids that are not there are passed over."""
        if ids:
            self._words(lambda words: words.remove(scope, ids))
            self._also(lambda dense: dense.remove(scope, ids))

    def remove_scope(self, scope: str) -> None:
        """Take every text of a scope out."""
        self._words(lambda words: words.remove_scope(scope))
        self._also(lambda dense: dense.remove_scope(scope))

    def search(self, scopes: Sequence[str], question: str, *, k: int) -> list[IndexHit]:
        """The best `k` texts of these scopes for a question, best first."""
        scopes = list(dict.fromkeys(scopes))
        if self._vectors is None:
            found = self._by_words(scopes, question, k)
            return [IndexHit(one, score, f"words #{n}") for n, (one, score) in enumerate(found, 1)]
        depth = max(k, FUSION_DEPTH)
        return fuse_rankings(
            self._by_words(scopes, question, depth), self._near(scopes, question, depth)
        )[:k]

    def ids(self, scope: str) -> set[str]:
        """Every id of a scope."""
        return self._words(lambda words: words.ids(scope))

    def count(self, scope: str) -> int:
        """How many texts a scope has."""
        return self._words(lambda words: words.count(scope))

    def close(self) -> None:
        """Let go of the folder."""
        self._closing = True
        self.wait()
        if self._vectors is not None:
            self._vectors.close()

    def _fill_vectors(self, everything: AllTexts) -> None:
        log.info("Embedding every text of %s anew; words find them meanwhile.", self._folder)
        try:
            for scope, items in everything():
                with self._lock:
                    if self._vectors is None or self._closing:
                        return
                    self._vectors.add(scope, items)
            write_atomic(self._folder / "vectors.whole", self._vectors_form())
        except Exception as error:
            self._gave_up = True
            self._say(f"The vectors were not made ({error}); they are made at the next start.")

    def _by_words(self, scopes: Sequence[str], question: str, k: int) -> list[tuple[str, float]]:
        return self._words(lambda words: words.search(scopes, question, k))

    def _words(self, act: Callable[[Bm25Index], Result]) -> Result:
        """Do it with the words; where they prove damaged, with a new index, and `fresh` is true."""
        try:
            return act(self._bm25)
        except IndexDamagedError as error:
            self._damaged(error)
        try:
            self._bm25 = self._open_words()
            return act(self._bm25)
        except IndexDamagedError as error:
            raise StoreError(
                f"The index {self._folder} cannot be used ({error}). Is its disk full, or may it not "
                "be written? It is derived and may be deleted."
            ) from error

    def _near(self, scopes: Sequence[str], question: str, k: int) -> list[tuple[str, float]]:
        assert self._vectors is not None
        try:
            return self._vectors.search(scopes, question, k)
        except Exception as error:
            self._say(f"The vectors cannot be searched ({error}): by words alone for now.")
            self._unmark("vectors")
            return []

    def _also(self, change: Callable[[VectorIndex], None]) -> None:
        """Do to the vectors what was done to the words; what fails is made up for at the next start."""
        if self._vectors is None:
            self._unmark("vectors")
            return
        try:
            with self._lock:  # Chroma's folder bears one writer
                change(self._vectors)
        except Exception as error:
            self._say(f"The vectors were not written ({error}); they are made up for later.")
            self._unmark("vectors")

    def _open_words(self) -> Bm25Index:
        folder = self._folder / "words"
        if self._mark("words") == FORMAT_VERSION:
            try:
                if not (folder / "meta.json").is_file():
                    raise IndexDamagedError("its files are gone")
                return Bm25Index(folder)
            except IndexDamagedError as error:
                self._damaged(error)
        shutil.rmtree(folder, ignore_errors=True)
        return Bm25Index(folder)

    def _open_vectors(self, server: str | None) -> VectorIndex | None:
        assert self._embedder is not None
        try:
            dense = VectorIndex(self._folder / "vectors", self._embedder, server)
        except StoreError as error:
            self._say(str(error))
            return None
        if dense.was_reset:
            self._unmark("vectors")
        return dense

    def _damaged(self, error: IndexDamagedError) -> None:
        log.warning("The index %s is damaged (%s) and is made anew.", self._folder, error)
        self._unmark("words")

    def _vectors_form(self) -> str:
        assert self._embedder is not None
        return f"{FORMAT_VERSION} {self._embedder.name} {self._embedder.dimensions}"

    def _mark(self, part: str) -> str | None:
        try:
            return (self._folder / f"{part}.whole").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    def _unmark(self, part: str) -> None:
        (self._folder / f"{part}.whole").unlink(missing_ok=True)

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning(sentence)


def open_index(
    folder: Path, embedder: Embedder | None = None, *, server: str | None = None
) -> HybridIndex:
    """The index in a folder that is its own; `server` is the URL of a Chroma server for the vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    return HybridIndex(folder, embedder, server)


def fuse_rankings(
    words: Sequence[tuple[str, float]], near: Sequence[tuple[str, float]]
) -> list[IndexHit]:
    """Two rankings as one, best first, by the sum of two shares: a text's BM25 of the best one's, and
    how far its cosine is on the way from the last one's to 1.

    A model that does not know the language finds all texts about equally near and changes little;
    reciprocal rank fusion would believe its order. Taking the best one's cosine in place of 1 would,
    too; taking the bare difference would hang on how close together a model puts all texts.

    >>> [hit.id for hit in fuse_rankings([("a", 9.0), ("b", 8.0)], [("b", 0.9), ("c", 0.6)])]
    ['b', 'a', 'c']
    """
    score: dict[str, float] = {}
    why: dict[str, list[str]] = {}
    best = words[0][1] if words else 1.0
    last = near[-1][1] if len(near) > 1 else 0.0
    worth = [("words", [(one, value / best) for one, value in words])]
    way = max(1.0 - last, 1e-6)
    worth += [("meaning", [(one, (value - last) / way) for one, value in near])]
    for kind, ranking in worth:
        for rank, (identity, value) in enumerate(ranking, 1):
            score[identity] = score.get(identity, 0.0) + value
            why.setdefault(identity, []).append(f"{kind} #{rank}")
    ranked = sorted(score, key=lambda identity: -score[identity])
    return [IndexHit(identity, score[identity], ", ".join(why[identity])) for identity in ranked]
