"""Long-term memory: rows of the database found by words and meaning, ranked by what matters.

The database is the source of truth. The index is derived: rebuilt when it is damaged, and brought up
to date when it lacks rows, so that nothing is lost with it.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from elysia.core.errors import MemoryFault
from elysia.memory.base import Memory, MemoryHit, MemoryInput, MemoryKind, MemoryScope, MemoryStore
from elysia.memory.extract import FactExtractor, UserFact, extract_facts
from elysia.memory.importance import is_small_talk, score_importance
from elysia.memory.index_writer import BackgroundIndexWriter
from elysia.memory.memory_repository import MemoryRepository, MemoryRow, build_row, list_scopes
from elysia.memory.query import ParsedQuery, parse_query
from elysia.memory.ranking import (
    MAX_COMPARED,
    MAX_UNINDEXED,
    MemoryCandidate,
    collect_rows,
    find_implied_names,
    find_outdated_turns,
    rerank,
    search_index,
)
from elysia.retrieval.analyzer import count_content_words
from elysia.retrieval.embedders import Embedder
from elysia.retrieval.index import HybridIndex, open_index
from elysia.store.database import Database
from elysia.store.tables import memories as table

log = logging.getLogger(__name__)

MIN_SCORE = 0.02  # a memory below shares nothing with the question
# If the best scores below the first, nothing answers the question; a memory below the second share of
# the best is not worth its tokens. Neither costs `benchmarks/memory.py` any recall.
MIN_BEST_SCORE, MIN_SCORE_SHARE = 0.08, 0.1


def open_memory(
    database: Database,
    folder: Path,
    embedder: Embedder | None = None,
    *,
    extractor: FactExtractor = extract_facts,
    server: str | None = None,
    clock: Callable[[], float] = time.time,
) -> LongTermMemory:
    """The memory in a database, with its index in `folder`. Without an embedder, search is by words.

    `server`: a Chroma server's URL for the vectors. `clock`: seconds since 1970.
    """
    index = open_index(folder, embedder, server=server)
    return LongTermMemory(database, index, extractor, clock)


class LongTermMemory(MemoryStore):
    """See `MemoryStore`; opened by `open_memory`. May be called from several threads."""

    def __init__(
        self,
        database: Database,
        index: HybridIndex,
        extractor: FactExtractor,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._index = index
        self._extractor = extractor
        self._clock = clock
        self._checked: set[str] = set()  # keys of scopes whose index was compared with their rows
        self._index_writer = BackgroundIndexWriter(index, self._checked.discard)
        self._repair_lock = threading.RLock()

    def close(self) -> None:
        """Write what the index lacks and close it. The database belongs to whoever opened it."""
        self._index_writer.close()
        self._index.close()

    def remember(self, scope: MemoryScope, messages: Sequence[MemoryInput]) -> list[Memory]:
        """Take in messages, in order, and return what is new. A message counts once, by its id."""
        self._repair(scope)
        ids = [message.message_id for message in messages]
        with self._database.read() as connection:
            known = MemoryRepository(connection, scope).find_known_messages(ids)
        messages = [item for item in messages if item.message_id not in known and item.text.strip()]
        if not messages:
            return []
        # An extractor may take long; it must not hold the database's write lock.
        facts = {message.message_id: self._extract(message) for message in messages}
        with self._database.write() as connection:
            rows = self._insert(MemoryRepository(connection, scope), messages, facts)
        self._index_writer.add(build_scope_key(scope), [(row.id, row.text) for row in rows])
        return [row.to_memory() for row in rows]

    def recall(
        self, scope: MemoryScope, question: str, *, k: int = 8, without: Collection[str] = ()
    ) -> list[MemoryHit]:
        """The best `k` for a question, best first; see `MemoryStore`.

        Empty for a greeting, and where nothing comes near; greetings are recalled only for a question
        with their words.
        """
        if is_small_talk(question):
            return []
        self._repair(scope)
        now = self._clock()
        query = parse_query(question, now)
        candidates = self._collect_candidates(scope, query, set(without))
        ranked = rerank(query, candidates, now)
        if not ranked or ranked[0].score < MIN_BEST_SCORE:
            return []
        min_score = max(MIN_SCORE, MIN_SCORE_SHARE * ranked[0].score)
        names = {candidate.row.speaker for candidate in candidates}
        hits: list[MemoryHit] = []
        messages: set[str | None] = set()
        texts: set[frozenset[str]] = set()
        for candidate in ranked:
            if len(hits) == k or candidate.score < min_score:
                break
            # A fact and its turn are one memory; so are two turns of the same words.
            row = candidate.row
            words = frozenset(count_content_words(row.text[:MAX_COMPARED]))
            if row.message_id in messages or (words and words in texts):
                continue
            if row.kind == "turn" and not candidate.shares_words and is_small_talk(row.text, names):
                continue
            messages.add(row.message_id)
            texts.add(words)
            memory = row.to_memory(current=not candidate.is_outdated)
            hits.append(MemoryHit(memory, round(candidate.score, 4), tuple(candidate.reasons)))
        return hits

    def list_memories(
        self, scope: MemoryScope, *, kind: MemoryKind | None = None, limit: int = 200
    ) -> list[Memory]:
        """Everything remembered, newest first, replaced facts included."""
        conditions = [table.c.kind == kind] if kind else []
        order = [table.c.created.desc(), table.c.number.desc(), table.c.id]
        with self._database.read() as connection:
            rows = MemoryRepository(connection, scope).fetch(*conditions, order=order, limit=limit)
        return [row.to_memory() for row in rows]

    def correct(self, scope: MemoryScope, memory_id: str, text: str) -> Memory:
        """Replace a memory's text by the user's words. MemoryFault when it is not in the scope."""
        text = text.strip()
        if not text:
            raise MemoryFault("memory.empty_correction")
        self._repair(scope)
        with self._database.write() as connection:
            repository = MemoryRepository(connection, scope)
            repository.get(memory_id)
            repository.set_text(memory_id, text)
            row = repository.get(memory_id)
        self._index_writer.add(build_scope_key(scope), [(row.id, row.text)])
        return row.to_memory()

    def forget(self, scope: MemoryScope, memory_id: str) -> None:
        """Delete a memory for good, with what it replaced and the turns that stated them."""
        self._repair(scope)
        with self._database.write() as connection:
            repository = MemoryRepository(connection, scope)
            row = repository.get(memory_id)
            facts = [row]
            if row.kind == "turn":
                stated = repository.fetch_by_message([str(row.message_id)])
                facts = [item for item in stated if item.kind == "fact"]
            facts += [old for fact in facts for old in repository.fetch_replaced(fact)]
            messages = {str(item.message_id) for item in [row, *facts]}
            # Other facts of the same messages stay.
            stated = repository.fetch_by_message(messages)
            turns = [item for item in stated if item.kind == "turn"]
            rows = {item.id: item for item in [*facts, *turns]}
            repository.delete(list(rows.values()))
            repository.mark_forgotten(messages)
        self._index_writer.remove(build_scope_key(scope), list(rows))

    def forget_messages(self, scope: MemoryScope, message_ids: Collection[str]) -> None:
        """Delete what came from these messages; facts that only they replaced are current again."""
        self._repair(scope)
        with self._database.read() as connection:
            if not MemoryRepository(connection, scope).fetch_by_message(message_ids):
                return
        with self._database.write() as connection:
            repository = MemoryRepository(connection, scope)
            rows = repository.fetch_by_message(message_ids)
            repository.delete(rows)
        self._index_writer.remove(build_scope_key(scope), [row.id for row in rows])

    def forget_all(self, scope: MemoryScope) -> None:
        """Delete everything of the scope."""
        with self._database.write() as connection:
            MemoryRepository(connection, scope).delete_all()
        self._index_writer.remove_scope(build_scope_key(scope))

    def _extract(self, message: MemoryInput) -> Sequence[UserFact]:
        try:
            return self._extractor(message)
        except Exception as error:  # a turn without its facts is better than no turn
            log.warning("No facts were extracted from message %s: %s", message.message_id, error)
            return ()

    def _insert(
        self,
        repository: MemoryRepository,
        messages: Sequence[MemoryInput],
        facts: dict[str, Sequence[UserFact]],
    ) -> list[MemoryRow]:
        """Insert what is new; the rows, in the order of their messages, turns before their facts."""
        # Asked again: another process may have remembered them since.
        known = repository.find_known_messages([message.message_id for message in messages])
        number = repository.get_next_number()
        turns: list[MemoryRow] = []
        stated: list[MemoryRow] = []
        for message in messages:
            if message.message_id in known:
                continue
            known.add(message.message_id)
            own_facts = facts.get(message.message_id, ())
            importance = score_importance(message.text, message.role, len(own_facts))
            turns.append(build_row(message, number, "turn", message.text.strip(), importance))
            for fact in own_facts:
                row = repository.insert_fact(message, number, fact)
                stated += [row] if row else []
            number += 1
        repository.insert(turns)
        return sorted([*turns, *stated], key=lambda row: row.number)

    def _collect_candidates(
        self, scope: MemoryScope, query: ParsedQuery, without: set[str]
    ) -> list[MemoryCandidate]:
        key = build_scope_key(scope)
        with self._database.read() as connection:
            names = find_implied_names(MemoryRepository(connection, scope), query)
        query.synonyms.update(dict.fromkeys(names, 1))
        scores, nearest = search_index(self._index, key, query)
        scores |= dict.fromkeys(self._index_writer.pending_ids(key)[-MAX_UNINDEXED:], 0.0)
        with self._database.read() as connection:
            repository = MemoryRepository(connection, scope)
            rows = collect_rows(repository, query, scores)
            rows = [row for row in rows if row.message_id not in without]
            outdated = find_outdated_turns(repository, rows)
        return [
            MemoryCandidate(
                row,
                scores.get(row.id, 0.0),
                row.id in nearest,
                is_outdated=row.kind == "turn" and row.message_id in outdated,
            )
            for row in rows
        ]

    def _repair(self, scope: MemoryScope) -> None:
        """Bring the index in line with the rows: once per scope, and whenever the index is new."""
        key = build_scope_key(scope)
        if key in self._checked and not self._index.needs_refill:
            return
        with self._repair_lock:
            if self._index.needs_refill:
                self._refill()
            if key in self._checked:
                return
            self._index_writer.flush()
            indexed = self._index.ids(key)
            with self._database.read() as connection:
                repository = MemoryRepository(connection, scope)
                stored = repository.ids()
                missing = repository.fetch_by_id(stored - indexed)
            # They differ where a process was killed between the database and the index.
            self._index.add(key, [(row.id, row.text) for row in missing])
            self._index.remove(key, list(indexed - stored))
            self._checked.add(key)

    def _refill(self) -> None:
        with self._database.read() as connection:
            scopes = list_scopes(connection)
        for scope in scopes:
            with self._database.read() as connection:
                rows = MemoryRepository(connection, scope).fetch()
            self._index.add(build_scope_key(scope), [(row.id, row.text) for row in rows])
        if scopes:
            log.info("The memory index was rebuilt: %d scopes.", len(scopes))
        self._index.mark_complete()


def build_scope_key(scope: MemoryScope) -> str:
    """The scope's name in the index; no two scopes share one, whatever their names contain."""
    name = f"{len(scope.user)}:{scope.user}{scope.character}"
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
