"""Long-term memory: rows of the database found by words and meaning, ranked by what matters.

The database is the truth. The index is derived: made anew when it is damaged, and brought up to date
when it lacks what the rows have, so that nothing is lost with it. Knows nothing of prompts.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from sqlalchemy import Connection, or_, select, update

from elysia.core.errors import MemoryFault
from elysia.memory import rows
from elysia.memory.base import Heard, Kind, Memory, MemoryStore, Recalled, Scope
from elysia.memory.behind import Behind
from elysia.memory.facts import Extractor, Fact, facts_of
from elysia.memory.question import Question, read_question
from elysia.memory.rank import LONGEST, Candidate, rank
from elysia.memory.rows import Row
from elysia.memory.weigh import weight_of
from elysia.memory.words import content
from elysia.retrieval.embed import Embedder
from elysia.retrieval.index import Index, open_index
from elysia.store.database import Database
from elysia.store.tables import memories as table

log = logging.getLogger(__name__)

DEPTH = 48  # of the index's hits that are ranked
REACH = 2  # neighbours to each side that are ranked with a hit
ROOTS = 16  # hits whose neighbours are looked at
WINDOW = 160  # turns of the days that a question names
FACTS = 60  # newest facts that are always looked at
ENDS = 24  # newest or oldest turns, for questions that ask for them
UNWRITTEN = 100  # newest memories that the index may not find yet
# Subjects with names of their own, and the slots in which those stand.
PEOPLE = {"pet", "partner", "family", "mother", "father", "siblings", "baby", "friend"}
NAMED_SLOTS = ("pet:", "partner", "family:", "acquaintance:")
MEANT = 8  # nearest by meaning that need no word in common
LOWEST = 0.02  # what scores less shares nothing with the question

_NAME = re.compile(
    r"叫做?([\u4e00-\u9fff]{1,4}|[A-Z][a-z]+)|[和跟与]([\u4e00-\u9fff]{2,3})(?:分手|离婚|结婚|"
    r"订婚)|\b(?:called|named) ([A-Z][\w'-]+)"
)

_MEANT = re.compile(r"meaning #(\d+)")


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
        # An extractor may take its time; nobody waits for the database meanwhile.
        stated = {one.message_id: self._facts(one) for one in heard if one.message_id not in known}
        turns: list[Row] = []
        facts_kept: list[Row] = []
        with self._database.write() as connection:
            known = rows.heard_before(connection, scope, [one.message_id for one in heard])
            number = rows.next_number(connection, scope)
            for one in heard:
                if one.message_id in known or not one.text.strip():
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
        """The best `k` for a question, best first; replaced facts never."""
        self._mend(scope)
        now = self._clock()
        asked = read_question(question, now)
        candidates = self._candidates(scope, asked, set(without))
        best: list[Recalled] = []
        said: set[str | None] = set()
        texts: set[frozenset[str]] = set()
        for one in rank(asked, candidates, now):
            if len(best) == k or one.score < LOWEST:
                break
            # A fact and the turn it was said in are one memory; so are two turns of the same words.
            row, plain = one.row, frozenset(content(one.row.text[:LONGEST]))
            if row.message_id in said or (plain and plain in texts):
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
        """What may answer: the index's hits and their neighbours, facts, days, an end of time."""
        found: dict[str, float] = {}
        meant: set[str] = set()
        asked.kin.update(dict.fromkeys(self._names(scope, asked), 1))
        for words in (asked.text, " ".join(asked.kin)):
            depth = DEPTH if words is asked.text else DEPTH // 2
            hits = self._index.search([key_of(scope)], words, k=depth) if words else []
            fused = any("meaning" in hit.why for hit in hits)
            for hit in hits:
                if words is asked.text:
                    near = _MEANT.search(hit.why)
                    # Fused ranks lie close together: the last of them is worth nothing.
                    last = hits[-1].score if fused else 0.0
                    found[hit.id] = (hit.score - last) / ((hits[0].score - last) or 1.0)
                    meant |= {hit.id} if near and int(near[1]) <= MEANT else set()
                else:
                    found.setdefault(hit.id, 0.0)
        found |= dict.fromkeys(self._behind.unwritten(key_of(scope))[-UNWRITTEN:], 0.0)
        with self._database.read() as connection:
            pool = rows.by_ids(connection, scope, found)
            best = sorted(pool, key=lambda row: -found[row.id])[:ROOTS]
            pool += rows.beside(connection, scope, best, REACH)
            pool += rows.fetch(
                connection, scope, table.c.kind == "fact", table.c.replaced_by.is_(None),
                order=[table.c.number.desc()], limit=FACTS,
            )  # fmt: skip
            if asked.days:
                bounds = [span.bounds for span in asked.days]
                pool += rows.between(connection, scope, bounds, WINDOW)
            for wanted, order in (
                (asked.recent, table.c.number.desc()),
                (asked.first, table.c.number.asc()),
            ):
                if wanted:
                    pool += rows.fetch(
                        connection, scope, table.c.kind == "turn", order=[order], limit=ENDS
                    )
            pool = [
                row
                for row in {row.id: row for row in pool}.values()
                if row.replaced_by is None and row.message_id not in without
            ]
            stale = self._outdated(connection, scope, pool)
        return [
            Candidate(
                row,
                found.get(row.id, 0.0),
                row.id in meant,
                stale=row.kind == "turn" and row.message_id in stale,
            )
            for row in pool
        ]

    def _names(self, scope: Scope, asked: Question) -> set[str]:
        """The words of names that the question means: of the mother, the dog, the partner once had."""
        if not asked.subjects & PEOPLE:
            return set()
        with self._database.read() as connection:
            facts = rows.fetch(
                connection, scope, table.c.kind == "fact",
                or_(*(table.c.slot.startswith(head) for head in NAMED_SLOTS)),
                order=[table.c.number.desc()], limit=FACTS,
            )  # fmt: skip
        found: set[str] = set()
        for row in facts:
            head = str(row.slot).split(":")[0]
            if head in asked.subjects or set(content(row.text)) & {*asked.words, *asked.kin}:
                found |= {word for name in names_in(row.text) for word in content(name)}
        return found - set(asked.words)

    def _outdated(self, connection: Connection, scope: Scope, pool: list[Row]) -> set[str]:
        """Messages that said a fact which was replaced or corrected since."""
        found: set[str] = set()
        messages = {row.message_id for row in pool if row.kind == "turn" and row.message_id}
        for part in rows.parts(messages):
            query = select(table.c.message_id).where(
                rows.within(scope, last=True),
                table.c.kind == "fact",
                table.c.message_id.in_(part),
                table.c.replaced_by.is_not(None) | table.c.corrected,
            )
            found.update(str(one) for one in connection.scalars(query))
        return found

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
        log.info("The index of memories was made anew: %d scopes.", len(scopes))
        self._index.filled()


def names_in(text: str) -> list[str]:
    """The names in a fact about somebody.

    >>> names_in("我养了一只橘猫，叫年糕"), names_in("My sister is called Grace")
    (['年糕'], ['Grace'])
    """
    return [next(filter(None, hit)) for hit in _NAME.findall(text)]


def key_of(scope: Scope) -> str:
    """The scope's name in the index; no two scopes share one, whatever their names hold."""
    name = f"{len(scope.user)}:{scope.user}{scope.character}"
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
