"""Finding texts by their words: BM25 from tantivy, in a folder that several processes may share.

A write is one commit: a process killed at any moment leaves what was there before. One process
writes at a time and the others wait for it; readers wait for nobody. Knows nothing of vectors.
"""

from __future__ import annotations

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
SMALL_HEAP, LARGE_HEAP = 15_000_000, 100_000_000  # bytes that a writer may collect before it writes
LARGE_BATCH = 2_000  # texts from which the larger writer is worth its start
MAX_QUERY_TERMS = 128  # of a question; the rarest ones stay

_ANALYZER = "folded"


class IndexDamagedError(Exception):
    """The folder's files contradict each other, or were not written."""


class Bm25Index:
    """Texts under scopes. `folder` holds the index alone; it is made when it is not there.

    Every method raises Damaged when the files turn out to be unusable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._analyzer = _build_analyzer()
        with _report_damage():
            folder.mkdir(parents=True, exist_ok=True)
            self._index = tantivy.Index(_build_schema(), path=str(folder), reuse=True)
            self._index.register_tokenizer(_ANALYZER, self._analyzer)
            self._index.config_reader("manual")
            self._searcher = self._now()

    def add(self, parts: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        """Put (id, text) of scopes in, in one write; an id that is there is replaced."""

        def put(writer: Any) -> None:
            for scope, items in parts:
                for identity, text in items:
                    key = build_key(scope, identity)
                    writer.delete_documents_by_term("key", key)
                    words = " ".join(extract_terms(text))
                    writer.add_document(
                        tantivy.Document(key=key, id=identity, scope=scope, text=words)
                    )

        if many := sum(len(items) for _, items in parts):
            self._write(put, LARGE_HEAP if many > LARGE_BATCH else SMALL_HEAP)

    def remove(self, scope: str, ids: Iterable[str]) -> None:
        """Take texts out; ids that are not there are passed over."""
        keys = [build_key(scope, identity) for identity in ids]
        if keys:
            self._write(
                lambda writer: [writer.delete_documents_by_term("key", key) for key in keys]
            )

    def remove_scope(self, scope: str) -> None:
        """Take every text of a scope out."""
        self._write(lambda writer: writer.delete_documents_by_term("scope", scope))

    def search(self, scopes: Sequence[str], question: str, k: int) -> list[tuple[str, float]]:
        """The best `k` of these scopes as (id, BM25 score), best first; without a shared term, none."""
        wanted = list(
            dict.fromkeys(self._analyzer.analyze(" ".join(extract_query_terms(question))))
        )
        if not wanted or not scopes or k < 1:
            return []
        with _report_damage():
            searcher = self._now()
            if len(wanted) > MAX_QUERY_TERMS:
                rarity = {term: searcher.doc_freq("text", term) or 10**9 for term in wanted}
                wanted = sorted(wanted, key=rarity.__getitem__)[:MAX_QUERY_TERMS]
            both = [(tantivy.Occur.Must, part) for part in (_any_term(wanted), _in_scopes(scopes))]
            hits = searcher.search(tantivy.Query.boolean_query(both), k, count=False).hits
            return [(str(searcher.doc(place)["id"][0]), float(score)) for score, place in hits]

    def ids(self, scope: str) -> set[str]:
        """Every id of a scope."""
        with _report_damage():
            searcher, count = self._now(), self.count(scope)
            if not count:
                return set()
            hits = searcher.search(_in_scopes([scope]), count, count=False).hits
            return {str(searcher.doc(place)["id"][0]) for _, place in hits}

    def count(self, scope: str) -> int:
        """How many texts a scope has."""
        with _report_damage():
            return int(self._now().search(_in_scopes([scope]), 1, count=True).count or 0)

    def _write(self, change: Callable[[Any], object], memory: int = SMALL_HEAP) -> None:
        with self._writing, _report_damage():
            writer = self._writer(memory)
            try:
                change(writer)
                writer.commit()
            finally:
                # Lets go of the folder, so that another process may write; what was not committed
                # is dropped.
                writer.wait_merging_threads()

    def _writer(self, memory: int) -> Any:
        until = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return self._index.writer(memory, num_threads=1)
            except ValueError as error:
                if "LockBusy" not in str(error) and "lock" not in str(error).lower():
                    raise
                if time.monotonic() > until:
                    raise StoreError(
                        f"The index {self._folder} has been written by another process for "
                        f"{LOCK_TIMEOUT:.0f} seconds; close that one, or try again."
                    ) from error
            time.sleep(0.02)

    def _now(self) -> Any:
        """A searcher that sees the last commit, of whichever process."""
        with self._reading:
            file = (self._folder / "meta.json").stat()
            # A clock's tick may hold two commits; each writes a new file, though.
            seen = (file.st_mtime_ns, file.st_ino, file.st_size)
            if seen != self._seen:
                self._index.reload()
                self._searcher, self._seen = self._index.searcher(), seen
            return self._searcher


@contextmanager
def _report_damage() -> Iterator[None]:
    try:
        yield
    except UnicodeError:
        raise  # what was asked for is no text; the files are well
    except (ValueError, OSError) as error:
        raise IndexDamagedError(str(error)) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # Rust's; it is no Exception to Python
            raise IndexDamagedError(str(error)) from None
        raise


def build_key(scope: str, identity: str) -> str:
    """One name for a text of a scope."""
    return f"{scope}\x1f{identity}"


def _any_term(wanted: Iterable[str]) -> Any:
    schema = _build_schema()
    one_of = [tantivy.Query.term_query(schema, "text", term, "freq") for term in wanted]
    return tantivy.Query.boolean_query([(tantivy.Occur.Should, one) for one in one_of])


def _in_scopes(scopes: Sequence[str]) -> Any:
    schema = _build_schema()
    one_of = [tantivy.Query.term_query(schema, "scope", scope, "basic") for scope in scopes]
    within = tantivy.Query.boolean_query([(tantivy.Occur.Should, one) for one in one_of])
    return tantivy.Query.const_score_query(within, 0.0)


def _build_analyzer() -> Any:
    """Terms come separated by spaces; English ones lose their endings."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    return builder.filter(tantivy.Filter.stemmer("english")).build()


def _build_schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("key", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("scope", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("text", tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()
