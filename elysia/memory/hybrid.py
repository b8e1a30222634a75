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
from elysia.memory import rows
from elysia.memory.base import Heard, Kind, Memory, MemoryStore, Recalled, Scope
from elysia.memory.behind import Behind
from elysia.memory.candidates import UNWRITTEN, hits, names_meant, outdated, pool_of
from elysia.memory.facts import Extractor, Fact, facts_of
from elysia.memory.question import Question, read_question
from elysia.memory.rank import LONGEST, Candidate, rank
from elysia.memory.rows import Row
from elysia.memory.weigh import says_nothing, weight_of
from elysia.memory.words import content
from elysia.retrieval.embed import Embedder
from elysia.retrieval.index import Index, open_index
from elysia.store.database import Database
from elysia.store.tables import memories as table

log = logging.getLogger(__name__)

LOWEST = 0.02  # what scores less shares nothing with the question
# Below this for the best, nothing answers; below this part of the best, a memory takes room for
# nothing. Neither costs `benchmarks/memory.py` anything of what it finds.
FLOOR, PART = 0.08, 0.1


def build(
    database: Database,
    folder: Path,
    embedder: Embedder | None = None,
    *,
    extractor: Extractor = facts_of,
    server: str | None = None,
    clock: Callable[[], float] = time.time,
) -> HybridMemory:
    """The memory in a database, with its index in `folder`. Without an embedder, by words alone.

    `server`: a Chroma server's URL for the vectors. `clock`: seconds since 1970.
    """
    return HybridMemory(database, open_index(folder, embedder, server=server), extractor, clock)


class HybridMemory(MemoryStore):
    """Made by `build`. May be called from several threads."""

    def __init__(
        self, database: Database, index: Index, extractor: Extractor, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._index = index
        self._extractor = extractor
        self._clock = clock
        self._checked: set[str] = set()  # scopes whose index was compared with their rows
        self._behind = Behind(index, self._checked.discard)
        self._lock = threading.RLock()  # of the index's repair

    def close(self) -> None:
        """Write what the index lacks and let go of it. The database is its opener's."""
        self._behind.close()
        self._index.close()

    def remember(self, scope: Scope, heard: Sequence[Heard]) -> list[Memory]:
        """Take in messages, in order; what is new is given back. A message heard twice is once."""
        self._mend(scope)
        with self._database.read() as connection:
            known = rows.heard_before(connection, scope, [one.message_id for one in heard])
        heard = [one for one in heard if one.message_id not in known and one.text.strip()]
        if not heard:
            return []
        # An extractor may take its time; nobody waits for the database meanwhile.
        stated = {one.message_id: self._facts(one) for one in heard}
        turns: list[Row] = []
        facts_kept: list[Row] = []
        with self._database.write() as connection:
            known = rows.heard_before(connection, scope, [one.message_id for one in heard])
            number = rows.next_number(connection, scope)
            for one in heard:
                if one.message_id in known:
                    continue
                known.add(one.message_id)
                facts = stated.get(one.message_id, ())
                weight = weight_of(one.text, one.role, len(facts))
                turns.append(rows.turn_of(one, number, weight))
                for fact in facts:
                    row = rows.put_fact(connection, scope, one, number, fact)
                    facts_kept += [row] if row else []
                number += 1
            rows.put(connection, scope, turns)
        new = sorted([*turns, *facts_kept], key=lambda row: row.number)
        self._behind.add(key_of(scope), [(row.id, row.text) for row in new])
        return [row.memory() for row in new]

    def recall(
        self, scope: Scope, question: str, *, k: int = 8, without: Collection[str] = ()
    ) -> list[Recalled]:
        """The best `k` for a question, best first; replaced facts never. Nothing for a greeting, nor
        where nothing comes near; no greetings but for who asks with their words.
        """
        if says_nothing(question):
            return []
        self._mend(scope)
        now = self._clock()
        asked = read_question(question, now)
        candidates = self._candidates(scope, asked, set(without))
        best: list[Recalled] = []
        said: set[str | None] = set()
        texts: set[frozenset[str]] = set()
        names = {one.row.speaker for one in candidates}
        ranked = rank(asked, candidates, now)
        least = max(LOWEST, PART * ranked[0].score) if ranked else LOWEST
        if ranked and ranked[0].score < FLOOR:
            return []
        for one in ranked:
            if len(best) == k or one.score < least:
                break
            # A fact and the turn it was said in are one memory; so are two turns of the same words.
            row, plain = one.row, frozenset(content(one.row.text[:LONGEST]))
            if row.message_id in said or (plain and plain in texts):
                continue
            if row.kind == "turn" and not one.shares and says_nothing(row.text, names):
                continue
            said.add(row.message_id)
            texts.add(plain)
            best.append(
                Recalled(row.memory(current=not one.stale), round(one.score, 4), ", ".join(one.why))
            )
        return best

    def known(self, scope: Scope, *, kind: Kind | None = None, limit: int = 200) -> list[Memory]:
        """What is remembered, newest first, replaced facts among them."""
        wanted = [table.c.kind == kind] if kind else []
        order = [table.c.created.desc(), table.c.number.desc(), table.c.id]
        with self._database.read() as connection:
            found = rows.fetch(connection, scope, *wanted, order=order, limit=limit)
        return [row.memory() for row in found]

    def correct(self, scope: Scope, memory_id: str, text: str) -> Memory:
        """Put the user's words in a memory's place. MemoryFault when it is not in the scope."""
        text = text.strip()
        if not text:
            raise MemoryFault("A memory cannot be corrected to nothing; forget it instead.")
        self._mend(scope)
        with self._database.write() as connection:
            rows.one(connection, scope, memory_id)
            connection.execute(
                update(table)
                .where(rows.within(scope), table.c.id == memory_id)
                .values(text=text, corrected=True)
            )
            row = rows.one(connection, scope, memory_id)
        self._behind.add(key_of(scope), [(row.id, row.text)])
        return row.memory()

    def forget(self, scope: Scope, memory_id: str) -> None:
        """Forget one for good, with what it replaced and the turns in which they were said."""
        self._mend(scope)
        with self._database.write() as connection:
            row = rows.one(connection, scope, memory_id)
            facts = [row]
            if row.kind == "turn":
                said = rows.of_messages(connection, scope, [str(row.message_id)])
                facts = [one for one in said if one.kind == "fact"]
            facts += [old for one in facts for old in rows.replaced(connection, scope, one)]
            messages = {str(one.message_id) for one in [row, *facts]}
            # Other facts that were said in the same breath stay.
            turns = rows.of_messages(connection, scope, messages)
            going = [*facts, *(one for one in turns if one.kind == "turn")]
            rows.remove(connection, scope, {one.id: one for one in going}.values())
            rows.bury(connection, scope, messages)
        self._behind.remove(key_of(scope), [one.id for one in going])

    def forget_messages(self, scope: Scope, message_ids: Collection[str]) -> None:
        """Forget what came from these messages; facts that only they replaced are current again."""
        self._mend(scope)
        with self._database.read() as connection:
            if not rows.of_messages(connection, scope, message_ids):
                return
        with self._database.write() as connection:
            going = rows.of_messages(connection, scope, message_ids)
            rows.remove(connection, scope, going)
        self._behind.remove(key_of(scope), [one.id for one in going])

    def forget_all(self, scope: Scope) -> None:
        """Forget everything of the scope."""
        with self._database.write() as connection:
            connection.execute(table.delete().where(rows.within(scope)))
        self._behind.remove_scope(key_of(scope))

    def _facts(self, heard: Heard) -> Sequence[Fact]:
        try:
            return self._extractor(heard)
        except Exception as error:  # the turn is worth more than its facts
            log.warning("No facts were taken from message %s: %s", heard.message_id, error)
            return ()

    def _candidates(self, scope: Scope, asked: Question, without: set[str]) -> list[Candidate]:
        key = key_of(scope)
        with self._database.read() as connection:
            asked.kin.update(dict.fromkeys(names_meant(connection, scope, asked), 1))
        found, meant = hits(self._index, key, asked)
        found |= dict.fromkeys(self._behind.unwritten(key)[-UNWRITTEN:], 0.0)
        with self._database.read() as connection:
            pool = pool_of(connection, scope, asked, found)
            pool = [row for row in pool if row.message_id not in without]
            stale = outdated(connection, scope, pool)
        return [
            Candidate(
                row, found.get(row.id, 0.0), row.id in meant,
                stale=row.kind == "turn" and row.message_id in stale,
            )
            for row in pool
        ]  # fmt: skip

    def _mend(self, scope: Scope) -> None:
        """Bring the index in line with the rows: once a scope, and whenever the index is new."""
        key = key_of(scope)
        if key in self._checked and not self._index.fresh:
            return
        with self._lock:
            if self._index.fresh:
                self._refill()
            if key in self._checked:
                return
            self._behind.settle()
            indexed = self._index.ids(key)
            with self._database.read() as connection:
                query = select(table.c.id).where(rows.within(scope), table.c.kind != "gone")
                there = set(connection.scalars(query))
                lacking = rows.by_ids(connection, scope, there - indexed)
            # A process that was killed between the database and the index left this.
            self._index.add(key, [(row.id, row.text) for row in lacking])
            self._index.remove(key, list(indexed - there))
            self._checked.add(key)

    def _refill(self) -> None:
        with self._database.read() as connection:
            query = select(table.c.user_id, table.c.character).distinct()
            scopes = [Scope(user, character) for user, character in connection.execute(query)]
        for scope in scopes:
            with self._database.read() as connection:
                items = [(row.id, row.text) for row in rows.fetch(connection, scope)]
            self._index.add(key_of(scope), items)
        if scopes:
            log.info("The index of memories was made anew: %d scopes.", len(scopes))
        self._index.filled()


def key_of(scope: Scope) -> str:
    """The scope's name in the index; no two scopes share one, whatever their names hold."""
    name = f"{len(scope.user)}:{scope.user}{scope.character}"
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
