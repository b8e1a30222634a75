"""Long-term memory: rows of the database found by words and meaning, ranked by what matters.

The database is the truth. The index is derived: made anew when it is damaged, and brought up to date
when it lacks what the rows have, so that nothing is lost with it. Knows nothing of prompts.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from sqlalchemy import select, update

from elysia.core.errors import MemoryFault
from elysia.memory import memory_repository
from elysia.memory.base import Memory, MemoryHit, MemoryInput, MemoryKind, MemoryScope, MemoryStore
from elysia.memory.extract import FactExtractor, UserFact, extract_facts
from elysia.memory.importance import is_small_talk, score_importance
from elysia.memory.index_writer import BackgroundIndexWriter
from elysia.memory.memory_repository import MemoryRow
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

MIN_SCORE = 0.02  # what scores less shares nothing with the question
# Below this for the best, nothing answers; below this part of the best, a memory takes room for
# nothing. Neither costs `benchmarks/memory.py` anything of what it finds.
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
    """The memory in a database, with its index in `folder`. Without an embedder, by words alone.

    `server`: a Chroma server's URL for the vectors. `clock`: seconds since 1970.
    """
    return LongTermMemory(database, open_index(folder, embedder, server=server), extractor, clock)


class LongTermMemory(MemoryStore):
    """Made by `open_memory`. May be called from several threads."""

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
        self._checked: set[str] = set()  # scopes whose index was compared with their rows
        self._index_writer = BackgroundIndexWriter(index, self._checked.discard)
        self._lock = threading.RLock()  # of the index's repair

    def close(self) -> None:
        """Write what the index lacks and let go of it. The database is its opener's."""
        self._index_writer.close()
        self._index.close()

    def remember(self, scope: MemoryScope, heard: Sequence[MemoryInput]) -> list[Memory]:
        """Take in messages, in order; what is new is given back. A message heard twice is once."""
        self._mend(scope)
        with self._database.read() as connection:
            known = memory_repository.find_known_messages(
                connection, scope, [one.message_id for one in heard]
            )
        heard = [one for one in heard if one.message_id not in known and one.text.strip()]
        if not heard:
            return []
        # An extractor may take its time; nobody waits for the database meanwhile.
        stated = {one.message_id: self._facts(one) for one in heard}
        turns: list[MemoryRow] = []
        facts_kept: list[MemoryRow] = []
        with self._database.write() as connection:
            known = memory_repository.find_known_messages(
                connection, scope, [one.message_id for one in heard]
            )
            number = memory_repository.get_next_number(connection, scope)
            for one in heard:
                if one.message_id in known:
                    continue
                known.add(one.message_id)
                facts = stated.get(one.message_id, ())
                weight = score_importance(one.text, one.role, len(facts))
                turns.append(memory_repository.build_turn(one, number, weight))
                for fact in facts:
                    row = memory_repository.insert_fact(connection, scope, one, number, fact)
                    facts_kept += [row] if row else []
                number += 1
            memory_repository.insert_rows(connection, scope, turns)
        new = sorted([*turns, *facts_kept], key=lambda row: row.number)
        self._index_writer.add(build_scope_key(scope), [(row.id, row.text) for row in new])
        return [row.memory() for row in new]

    def recall(
        self, scope: MemoryScope, question: str, *, k: int = 8, without: Collection[str] = ()
    ) -> list[MemoryHit]:
        """The best `k` for a question, best first; replaced facts never. Nothing for a greeting, nor
        where nothing comes near; no greetings but for who asks with their words.
        """
        if is_small_talk(question):
            return []
        self._mend(scope)
        now = self._clock()
        asked = parse_query(question, now)
        candidates = self._candidates(scope, asked, set(without))
        best: list[MemoryHit] = []
        said: set[str | None] = set()
        texts: set[frozenset[str]] = set()
        names = {one.row.speaker for one in candidates}
        ranked = rerank(asked, candidates, now)
        least = max(MIN_SCORE, MIN_SCORE_SHARE * ranked[0].score) if ranked else MIN_SCORE
        if ranked and ranked[0].score < MIN_BEST_SCORE:
            return []
        for one in ranked:
            if len(best) == k or one.score < least:
                break
            # A fact and the turn it was said in are one memory; so are two turns of the same words.
            row, plain = one.row, frozenset(count_content_words(one.row.text[:MAX_COMPARED]))
            if row.message_id in said or (plain and plain in texts):
                continue
            if row.kind == "turn" and not one.shares and is_small_talk(row.text, names):
                continue
            said.add(row.message_id)
            texts.add(plain)
            best.append(
                MemoryHit(
                    row.memory(current=not one.stale), round(one.score, 4), ", ".join(one.why)
                )
            )
        return best

    def list_memories(
        self, scope: MemoryScope, *, kind: MemoryKind | None = None, limit: int = 200
    ) -> list[Memory]:
        """What is remembered, newest first, replaced facts among them."""
        wanted = [table.c.kind == kind] if kind else []
        order = [table.c.created.desc(), table.c.number.desc(), table.c.id]
        with self._database.read() as connection:
            found = memory_repository.fetch_rows(
                connection, scope, *wanted, order=order, limit=limit
            )
        return [row.memory() for row in found]

    def correct(self, scope: MemoryScope, memory_id: str, text: str) -> Memory:
        """Put the user's words in a memory's place. MemoryFault when it is not in the scope."""
        text = text.strip()
        if not text:
            raise MemoryFault("A memory cannot be corrected to nothing; forget it instead.")
        self._mend(scope)
        with self._database.write() as connection:
            memory_repository.get_row(connection, scope, memory_id)
            connection.execute(
                update(table)
                .where(memory_repository.in_scope(scope), table.c.id == memory_id)
                .values(text=text, corrected=True)
            )
            row = memory_repository.get_row(connection, scope, memory_id)
        self._index_writer.add(build_scope_key(scope), [(row.id, row.text)])
        return row.memory()

    def forget(self, scope: MemoryScope, memory_id: str) -> None:
        """Forget one for good, with what it replaced and the turns in which they were said."""
        self._mend(scope)
        with self._database.write() as connection:
            row = memory_repository.get_row(connection, scope, memory_id)
            facts = [row]
            if row.kind == "turn":
                said = memory_repository.fetch_by_message(connection, scope, [str(row.message_id)])
                facts = [one for one in said if one.kind == "fact"]
            facts += [
                old
                for one in facts
                for old in memory_repository.fetch_replaced(connection, scope, one)
            ]
            messages = {str(one.message_id) for one in [row, *facts]}
            # Other facts that were said in the same breath stay.
            turns = memory_repository.fetch_by_message(connection, scope, messages)
            going = [*facts, *(one for one in turns if one.kind == "turn")]
            memory_repository.delete_rows(
                connection, scope, {one.id: one for one in going}.values()
            )
            memory_repository.mark_forgotten(connection, scope, messages)
        self._index_writer.remove(build_scope_key(scope), [one.id for one in going])

    def forget_messages(self, scope: MemoryScope, message_ids: Collection[str]) -> None:
        """Forget what came from these messages; facts that only they replaced are current again."""
        self._mend(scope)
        with self._database.read() as connection:
            if not memory_repository.fetch_by_message(connection, scope, message_ids):
                return
        with self._database.write() as connection:
            going = memory_repository.fetch_by_message(connection, scope, message_ids)
            memory_repository.delete_rows(connection, scope, going)
        self._index_writer.remove(build_scope_key(scope), [one.id for one in going])

    def forget_all(self, scope: MemoryScope) -> None:
        """Forget everything of the scope."""
        with self._database.write() as connection:
            connection.execute(table.delete().where(memory_repository.in_scope(scope)))
        self._index_writer.remove_scope(build_scope_key(scope))

    def _facts(self, heard: MemoryInput) -> Sequence[UserFact]:
        try:
            return self._extractor(heard)
        except Exception as error:  # the turn is worth more than its facts
            log.warning("No facts were taken from message %s: %s", heard.message_id, error)
            return ()

    def _candidates(
        self, scope: MemoryScope, asked: ParsedQuery, without: set[str]
    ) -> list[MemoryCandidate]:
        key = build_scope_key(scope)
        with self._database.read() as connection:
            asked.synonyms.update(dict.fromkeys(find_implied_names(connection, scope, asked), 1))
        found, meant = search_index(self._index, key, asked)
        found |= dict.fromkeys(self._index_writer.pending_ids(key)[-MAX_UNINDEXED:], 0.0)
        with self._database.read() as connection:
            pool = collect_rows(connection, scope, asked, found)
            pool = [row for row in pool if row.message_id not in without]
            stale = find_outdated_turns(connection, scope, pool)
        return [
            MemoryCandidate(
                row, found.get(row.id, 0.0), row.id in meant,
                stale=row.kind == "turn" and row.message_id in stale,
            )
            for row in pool
        ]  # fmt: skip

    def _mend(self, scope: MemoryScope) -> None:
        """Bring the index in line with the rows: once a scope, and whenever the index is new."""
        key = build_scope_key(scope)
        if key in self._checked and not self._index.needs_refill:
            return
        with self._lock:
            if self._index.needs_refill:
                self._refill()
            if key in self._checked:
                return
            self._index_writer.flush()
            indexed = self._index.ids(key)
            with self._database.read() as connection:
                query = select(table.c.id).where(
                    memory_repository.in_scope(scope), table.c.kind != "gone"
                )
                there = set(connection.scalars(query))
                lacking = memory_repository.fetch_by_id(connection, scope, there - indexed)
            # A process that was killed between the database and the index left this.
            self._index.add(key, [(row.id, row.text) for row in lacking])
            self._index.remove(key, list(indexed - there))
            self._checked.add(key)

    def _refill(self) -> None:
        with self._database.read() as connection:
            query = select(table.c.user_id, table.c.character).distinct()
            scopes = [MemoryScope(user, character) for user, character in connection.execute(query)]
        for scope in scopes:
            with self._database.read() as connection:
                items = [
                    (row.id, row.text) for row in memory_repository.fetch_rows(connection, scope)
                ]
            self._index.add(build_scope_key(scope), items)
        if scopes:
            log.info("The index of memories was made anew: %d scopes.", len(scopes))
        self._index.mark_complete()


def build_scope_key(scope: MemoryScope) -> str:
    """The scope's name in the index; no two scopes share one, whatever their names hold."""
    name = f"{len(scope.user)}:{scope.user}{scope.character}"
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
