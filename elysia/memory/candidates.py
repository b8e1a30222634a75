"""Which memories may answer a question: the index's hits and what stands beside them in the rows.

Knows nothing of how candidates are ranked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlalchemy import Connection, or_

from elysia.memory import rows
from elysia.memory.base import Scope
from elysia.memory.question import Question
from elysia.memory.rows import Row
from elysia.memory.statements import FACTS
from elysia.memory.words import content
from elysia.retrieval.index import Index
from elysia.store.tables import memories as table

DEPTH = 48  # of the index's hits that are ranked
REACH = 2  # neighbours to each side that are ranked with a hit
ROOTS = 16  # hits whose neighbours are looked at
WINDOW = 160  # turns of the days that a question names
ENDS = 24  # newest or oldest turns, for questions that ask for them
UNWRITTEN = 100  # newest memories that the index may not find yet
# Subjects with names of their own, and the slots in which those stand.
PEOPLE = {"pet", "partner", "family", "mother", "father", "siblings", "baby", "friend"}
NAMED_SLOTS = ("pet:", "partner", "family:", "acquaintance:")
MEANT = 8  # nearest by meaning that need no word in common

_NAME = re.compile(
    r"叫做?([\u4e00-\u9fff]{1,4}|[A-Z][a-z]+)|[和跟与]([\u4e00-\u9fff]{2,3})(?:分手|离婚|结婚|"
    r"订婚)|\b(?:called|named) ([A-Z][\w'-]+)"
)

_MEANT = re.compile(r"meaning #(\d+)")


def hits(index: Index, key: str, asked: Question) -> tuple[dict[str, float], set[str]]:
    """Ids that the index finds, each with its score against the best; and those near by meaning."""
    found: dict[str, float] = {}
    meant: set[str] = set()
    own = index.search([key], asked.text, k=DEPTH)
    # Fused ranks lie close together: the last of them is worth nothing.
    fused = any(_MEANT.search(hit.why) for hit in own)
    last = own[-1].score if fused else 0.0
    for hit in own:
        found[hit.id] = (hit.score - last) / ((own[0].score - last) or 1.0)
        near = _MEANT.search(hit.why)
        meant |= {hit.id} if near and int(near[1]) <= MEANT else set()
    kin = " ".join(asked.kin)
    for hit in index.search([key], kin, k=DEPTH // 2) if kin else []:
        found.setdefault(hit.id, 0.0)
    return found, meant


def pool_of(
    connection: Connection, scope: Scope, asked: Question, found: Mapping[str, float]
) -> list[Row]:
    """The hits with their neighbours, facts, the days that are named, an end of time. Replaced
    facts are not among them.
    """
    pool = rows.by_ids(connection, scope, found)
    best = sorted(pool, key=lambda row: -found[row.id])[:ROOTS]
    pool += rows.beside(connection, scope, best, REACH)
    pool += rows.newest_facts(connection, scope)
    if asked.days:
        pool += rows.between(connection, scope, [span.bounds for span in asked.days], WINDOW)
    for wanted, order in (
        (asked.recent, table.c.number.desc()),
        (asked.first, table.c.number.asc()),
    ):
        if wanted:
            pool += rows.fetch(connection, scope, table.c.kind == "turn", order=[order], limit=ENDS)
    return [row for row in {row.id: row for row in pool}.values() if row.replaced_by is None]


def names_meant(connection: Connection, scope: Scope, asked: Question) -> set[str]:
    """The words of names that the question means: of the mother, the dog, the partner once had."""
    if not asked.subjects & PEOPLE:
        return set()
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


def outdated(connection: Connection, scope: Scope, pool: list[Row]) -> set[str]:
    """Messages that said a fact which was replaced or corrected since."""
    messages = {row.message_id for row in pool if row.kind == "turn" and row.message_id}
    return rows.outdated(connection, scope, messages)


def names_in(text: str) -> list[str]:
    """The names in a fact about somebody.

    >>> names_in("我养了一只橘猫，叫年糕"), names_in("My sister is called Grace")
    (['年糕'], ['Grace'])
    """
    return [next(filter(None, hit)) for hit in _NAME.findall(text)]
