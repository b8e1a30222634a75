"""BM25: the formula for rankings in memory, and tantivy's index on disk that several processes share.

A write to the index is one commit: a process killed at any moment leaves what was there before. One
process writes at a time and the others wait for it; readers wait for nobody.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tantivy

from elysia.core.errors import StoreError
from elysia.retrieval.analyzer import extract_query_terms, extract_terms

LOCK_TIMEOUT = 30.0  # seconds to wait for another process that writes
SMALL_HEAP, LARGE_HEAP = (
    15_000_000,
    100_000_000,
)  # bytes that a writer may collect before it flushes
LARGE_BATCH = 2_000  # texts from which the larger heap is worth its start-up time
MAX_QUERY_TERMS = 128  # terms of a question; of a longer one the rarest are used

_ANALYZER = "folded"


class IndexDamagedError(Exception):
    """The index's files contradict each other, or could not be written."""


def inverse_document_frequency(texts: int, containing: int) -> float:
    """How much a term tells that `containing` of `texts` contain (Robertson and Zaragoza 2009)."""
    return math.log(1 + (texts - containing + 0.5) / (containing + 0.5))


def saturate(count: int, length_ratio: float, *, k1: float, b: float) -> float:
    """The weight of a term that occurs `count` times in a text, 0 to `k1 + 1`.

    `length_ratio` is the text's length relative to the mean; `b` says how much length matters.
    """
    return count * (k1 + 1) / (count + k1 * (1 - b + b * length_ratio))


class Bm25Index:
    """Texts under scopes. `folder` holds nothing else; it is created when it does not exist.

    Every method raises IndexDamagedError when the files turn out to be unusable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._version: tuple[int, ...] = ()  # of the commit that the searcher reads
        self._analyzer = _build_analyzer()
        with _report_damage():
            folder.mkdir(parents=True, exist_ok=True)
            self._index = tantivy.Index(_build_schema(), path=str(folder), reuse=True)
            self._index.register_tokenizer(_ANALYZER, self._analyzer)
            self._index.config_reader("manual")
            self._searcher = self._refresh()

    def add(self, parts: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        """Add (id, text) pairs of several scopes in one commit; an existing id is replaced."""

        def put(writer: Any) -> None:
            for scope, items in parts:
                for identity, text in items:
                    key = build_key(scope, identity)
                    writer.delete_documents_by_term("key", key)
                    words = " ".join(extract_terms(text))
                    writer.add_document(
                        tantivy.Document(key=key, id=identity, scope=scope, text=words)
                    )

        if total := sum(len(items) for _, items in parts):
            self._write(put, LARGE_HEAP if total > LARGE_BATCH else SMALL_HEAP)

    def remove(self, scope: str, ids: Iterable[str]) -> None:
        """Remove texts; unknown ids are ignored."""
        keys = [build_key(scope, identity) for identity in ids]
        if keys:
            self._write(
                lambda writer: [writer.delete_documents_by_term("key", key) for key in keys]
            )

    def remove_scope(self, scope: str) -> None:
        """Remove every text of a scope."""
        self._write(lambda writer: writer.delete_documents_by_term("scope", scope))

    def search(self, scopes: Sequence[str], question: str, k: int) -> list[tuple[str, float]]:
        """The best `k` of these scopes as (id, BM25 score), best first; texts without a shared term
        are not among them.
        """
        terms = list(dict.fromkeys(self._analyzer.analyze(" ".join(extract_query_terms(question)))))
        if not terms or not scopes or k < 1:
            return []
        with _report_damage():
            searcher = self._refresh()
            if len(terms) > MAX_QUERY_TERMS:
                frequency = {term: searcher.doc_freq("text", term) or 10**9 for term in terms}
                terms = sorted(terms, key=frequency.__getitem__)[:MAX_QUERY_TERMS]
            both = [(tantivy.Occur.Must, part) for part in (_any_term(terms), _in_scopes(scopes))]
            hits = searcher.search(tantivy.Query.boolean_query(both), k, count=False).hits
            return [(str(searcher.doc(address)["id"][0]), float(score)) for score, address in hits]

    def ids(self, scope: str) -> set[str]:
        """Every id of a scope."""
        with _report_damage():
            searcher, count = self._refresh(), self.count(scope)
            if not count:
                return set()
            hits = searcher.search(_in_scopes([scope]), count, count=False).hits
            return {str(searcher.doc(address)["id"][0]) for _, address in hits}

    def count(self, scope: str) -> int:
        """How many texts a scope has."""
        with _report_damage():
            return int(self._refresh().search(_in_scopes([scope]), 1, count=True).count or 0)

    def _write(self, change: Callable[[Any], object], heap: int = SMALL_HEAP) -> None:
        with self._write_lock, _report_damage():
            writer = self._open_writer(heap)
            try:
                change(writer)
                writer.commit()
            finally:
                # Releases the folder, so that another process may write; what was not committed is
                # dropped.
                writer.wait_merging_threads()

    def _open_writer(self, heap: int) -> Any:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return self._index.writer(heap, num_threads=1)
            except ValueError as error:
                if "LockBusy" not in str(error) and "lock" not in str(error).lower():
                    raise
                if time.monotonic() > deadline:
                    raise StoreError(
                        "retrieval.index_locked", folder=self._folder, seconds=round(LOCK_TIMEOUT)
                    ) from error
            time.sleep(0.02)

    def _refresh(self) -> Any:
        """A searcher that sees the last commit, whichever process made it."""
        with self._read_lock:
            file = (self._folder / "meta.json").stat()
            # Two commits may share a clock tick, but each writes a new file.
            version = (file.st_mtime_ns, file.st_ino, file.st_size)
            if version != self._version:
                self._index.reload()
                self._searcher, self._version = self._index.searcher(), version
            return self._searcher


@contextmanager
def _report_damage() -> Iterator[None]:
    try:
        yield
    except UnicodeError:
        raise  # the question is not valid text; the files are intact
    except (ValueError, OSError) as error:
        raise IndexDamagedError(str(error)) from error
    except BaseException as error:
        # A panic in Rust; to Python it is not an Exception.
        if type(error).__name__ == "PanicException":
            raise IndexDamagedError(str(error)) from None
        raise


def build_key(scope: str, identity: str) -> str:
    """The unique key of a text: its scope and id."""
    return f"{scope}\x1f{identity}"


def _any_term(terms: Iterable[str]) -> Any:
    schema = _build_schema()
    queries = [tantivy.Query.term_query(schema, "text", term, "freq") for term in terms]
    return tantivy.Query.boolean_query([(tantivy.Occur.Should, query) for query in queries])


def _in_scopes(scopes: Sequence[str]) -> Any:
    """A filter: it restricts the hits and adds nothing to their scores."""
    schema = _build_schema()
    queries = [tantivy.Query.term_query(schema, "scope", scope, "basic") for scope in scopes]
    either = tantivy.Query.boolean_query([(tantivy.Occur.Should, query) for query in queries])
    return tantivy.Query.const_score_query(either, 0.0)


def _build_analyzer() -> Any:
    """Terms arrive separated by spaces; English ones are stemmed."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    return builder.filter(tantivy.Filter.stemmer("english")).build()


def _build_schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("key", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("scope", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("text", tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()
