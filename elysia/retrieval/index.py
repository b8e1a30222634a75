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
from elysia.retrieval.dense import Dense
from elysia.retrieval.embed import Embedder
from elysia.retrieval.lexical import Damaged, Lexical

Result = TypeVar("Result")
# Called for all of an owner's texts, in parts of one scope each.
Everything = Callable[[], Iterable[tuple[str, Sequence[tuple[str, str]]]]]
log = logging.getLogger(__name__)

FORM = "2"  # of the terms and the fields; another one is built anew
DEPTH = 50  # hits of each kind that are fused


@dataclass(frozen=True)
class Hit:
    """A text that was found. Scores compare within one search; `why` is for people."""

    id: str
    score: float
    why: str


class Index:
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
        self._lexical = self._open_words()
        self._dense = self._open_vectors(server) if embedder else None

    @property
    def fresh(self) -> bool:
        """Whether the owner has to add its texts again."""
        return self._mark("words") != FORM or (
            self._dense is not None and self._mark("vectors") != self._vectors_form()
        )

    def filled(self) -> None:
        """The owner has added everything it has: `fresh` is false from now on."""
        write_atomic(self._folder / "words.whole", FORM)
        if self._dense is not None:
            write_atomic(self._folder / "vectors.whole", self._vectors_form())

    def refill(self, everything: Everything) -> None:
        """Add what the owner has: words before this returns, vectors after it, in a thread.

        `everything` is called for each of the two and gives (scope, [(id, text), ...]) in parts.
        """
        if self._mark("words") != FORM:
            for scope, items in everything():
                self._words(partial(Lexical.add, parts=[(scope, items)]))
            write_atomic(self._folder / "words.whole", FORM)
        if (
            self.fresh
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
            self._also(partial(Dense.add, scope=scope, items=items))

    def remove(self, scope: str, ids: Sequence[str]) -> None:
        """Take texts out; ids that are not there are passed over."""
        if ids:
            self._words(lambda words: words.remove(scope, ids))
            self._also(lambda dense: dense.remove(scope, ids))

    def remove_scope(self, scope: str) -> None:
        """Take every text of a scope out."""
        self._words(lambda words: words.remove_scope(scope))
        self._also(lambda dense: dense.remove_scope(scope))

    def search(self, scopes: Sequence[str], question: str, *, k: int) -> list[Hit]:
        """The best `k` texts of these scopes for a question, best first."""
        scopes = list(dict.fromkeys(scopes))
        if self._dense is None:
            found = self._by_words(scopes, question, k)
            return [Hit(one, score, f"words #{n}") for n, (one, score) in enumerate(found, 1)]
        depth = max(k, DEPTH)
        return fuse(self._by_words(scopes, question, depth), self._near(scopes, question, depth))[
            :k
        ]

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
        if self._dense is not None:
            self._dense.close()

    def _fill_vectors(self, everything: Everything) -> None:
        log.info("Embedding every text of %s anew; words find them meanwhile.", self._folder)
        try:
            for scope, items in everything():
                with self._lock:
                    if self._dense is None or self._closing:
                        return
                    self._dense.add(scope, items)
            write_atomic(self._folder / "vectors.whole", self._vectors_form())
        except Exception as error:
            self._gave_up = True
            self._say(f"The vectors were not made ({error}); they are made at the next start.")

    def _by_words(self, scopes: Sequence[str], question: str, k: int) -> list[tuple[str, float]]:
        return self._words(lambda words: words.search(scopes, question, k))

    def _words(self, act: Callable[[Lexical], Result]) -> Result:
        """Do it with the words; where they prove damaged, with a new index, and `fresh` is true."""
        try:
            return act(self._lexical)
        except Damaged as error:
            self._damaged(error)
        try:
            self._lexical = self._open_words()
            return act(self._lexical)
        except Damaged as error:
            raise StoreError(
                f"The index {self._folder} cannot be used ({error}). Is its disk full, or may it not "
                "be written? It is derived and may be deleted."
            ) from error

    def _near(self, scopes: Sequence[str], question: str, k: int) -> list[tuple[str, float]]:
        assert self._dense is not None
        try:
            return self._dense.search(scopes, question, k)
        except Exception as error:
            self._say(f"The vectors cannot be searched ({error}): by words alone for now.")
            self._unmark("vectors")
            return []

    def _also(self, change: Callable[[Dense], None]) -> None:
        """Do to the vectors what was done to the words; what fails is made up for at the next start."""
        if self._dense is None:
            self._unmark("vectors")
            return
        try:
            with self._lock:  # Chroma's folder bears one writer
                change(self._dense)
        except Exception as error:
            self._say(f"The vectors were not written ({error}); they are made up for later.")
            self._unmark("vectors")

    def _open_words(self) -> Lexical:
        folder = self._folder / "words"
        if self._mark("words") == FORM:
            try:
                if not (folder / "meta.json").is_file():
                    raise Damaged("its files are gone")
                return Lexical(folder)
            except Damaged as error:
                self._damaged(error)
        shutil.rmtree(folder, ignore_errors=True)
        return Lexical(folder)

    def _open_vectors(self, server: str | None) -> Dense | None:
        assert self._embedder is not None
        try:
            dense = Dense(self._folder / "vectors", self._embedder, server)
        except StoreError as error:
            self._say(str(error))
            return None
        if dense.emptied:
            self._unmark("vectors")
        return dense

    def _damaged(self, error: Damaged) -> None:
        log.warning("The index %s is damaged (%s) and is made anew.", self._folder, error)
        self._unmark("words")

    def _vectors_form(self) -> str:
        assert self._embedder is not None
        return f"{FORM} {self._embedder.name} {self._embedder.dimensions}"

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
) -> Index:
    """The index in a folder that is its own; `server` is the URL of a Chroma server for the vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    return Index(folder, embedder, server)


def fuse(words: Sequence[tuple[str, float]], near: Sequence[tuple[str, float]]) -> list[Hit]:
    """Two rankings as one, best first, by the sum of two shares: a text's BM25 of the best one's, and
    how far its cosine is on the way from the last one's to 1.

    A model that does not know the language finds all texts about equally near and changes little;
    reciprocal rank fusion would believe its order. Taking the best one's cosine in place of 1 would,
    too; taking the bare difference would hang on how close together a model puts all texts.

    >>> [hit.id for hit in fuse([("a", 9.0), ("b", 8.0)], [("b", 0.9), ("c", 0.6)])]
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
    return [Hit(identity, score[identity], ", ".join(why[identity])) for identity in ranked]
