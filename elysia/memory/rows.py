"""Memories as rows of the database, the truth of them. Every query names the scope.

Knows nothing of indexes or of how memories are found and ranked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, insert, or_, select, update

from elysia.core.errors import MemoryFault
from elysia.memory import statements
from elysia.memory.base import Heard, Kind, Memory, Scope
from elysia.memory.facts import Fact
from elysia.store.tables import memories as table
from elysia.store.tables import new_id

MANY = 500  # values of one IN
INSERT = insert(table)


@dataclass(frozen=True)
class Row:
    """A memory with what ranking wants to know of it. `number`: its message's place in the scope."""

    id: str
    kind: str
    number: int
    role: str
    speaker: str
    text: str
    slot: str | None
    conversation_id: str | None
    message_id: str | None
    importance: float
    replaced_by: str | None
    corrected: bool
    created: float

    def memory(self, *, current: bool = True) -> Memory:
        """As others see it."""
        kind: Kind = "fact" if self.kind == "fact" else "turn"
        return Memory(
            id=self.id,
            kind=kind,
            text=self.text,
            at=self.created,
            importance=self.importance,
            slot=self.slot,
            conversation_id=self.conversation_id,
            message_id=self.message_id,
            current=current and self.replaced_by is None,
            corrected=self.corrected,
        )


def within(scope: Scope) -> ColumnElement[bool]:
    """The condition that every query has."""
    return statements.within(scope.user, scope.character)


def fetch(
    connection: Connection,
    scope: Scope,
    *conditions: ColumnElement[bool],
    order: Sequence[Any] = (),
    limit: int | None = None,
) -> list[Row]:
    """Rows of a scope; those of forgotten messages never."""
    columns = [table.c[name] for name in statements.COLUMNS]
    query = select(*columns).where(within(scope), table.c.kind != "gone", *conditions)
    return [Row(*row) for row in connection.execute(query.order_by(*order).limit(limit))]


def asked(connection: Connection, scope: Scope, query: Select[Any], **values: Any) -> list[Row]:
    """Rows of a scope by one of `statements`."""
    return [Row(*row) for row in connection.execute(query, _with(scope, values))]


def one(connection: Connection, scope: Scope, identity: str) -> Row:
    """A memory by its id. MemoryFault when it is not in the scope."""
    found = fetch(connection, scope, table.c.id == identity)
    if not found:
        raise MemoryFault(
            f"There is no memory {identity[:40]!r} here; it may have been forgotten already."
        )
    return found[0]


def heard_before(
    connection: Connection, scope: Scope, message_ids: Collection[str]
) -> set[str | None]:
    """Which of these messages were taken in, or forgotten for good."""
    found: set[str | None] = set()
    for part in parts(message_ids):
        found.update(connection.scalars(statements.HEARD, _with(scope, {"the_messages": part})))
    return found


def next_number(connection: Connection, scope: Scope) -> int:
    """The place of the next message."""
    last = connection.scalar(statements.LAST_NUMBER, _with(scope, {}))
    return 0 if last is None else int(last) + 1


def turn_of(heard: Heard, number: int, importance: float) -> Row:
    """A message as a row, not kept yet."""
    return _row(heard, number, "turn", heard.text.strip(), importance)


def put(connection: Connection, scope: Scope, rows: Sequence[Row]) -> None:
    """Keep new rows."""
    owner = {"user_id": scope.user, "character": scope.character}
    if rows:
        connection.execute(INSERT, [owner | vars(row) for row in rows])


def put_fact(
    connection: Connection, scope: Scope, heard: Heard, number: int, fact: Fact
) -> Row | None:
    """Keep a fact in the place of what it contradicts; None when it is no news."""
    now = _current(connection, scope, fact)
    if fact.against is not None and now is None:
        return None
    if now is not None and _plain(now.text) == _plain(fact.text):
        return None
    slot = now.slot if now is not None else fact.slot
    late = now is not None and now.created > heard.at  # an older conversation, heard after
    heir = now.id if now is not None and late else None
    row = _row(heard, number, "fact", fact.text, fact.importance, slot, heir)
    put(connection, scope, [row])
    if now is not None and not late:
        connection.execute(update(table).where(table.c.id == now.id).values(replaced_by=row.id))
    return row


def _current(connection: Connection, scope: Scope, fact: Fact) -> Row | None:
    if fact.slot.endswith("*"):
        rows = fetch(
            connection, scope, table.c.slot.startswith(fact.slot[:-1], autoescape=True),
            table.c.kind == "fact", table.c.replaced_by.is_(None),
            order=[table.c.created.desc()],
        )  # fmt: skip
    else:
        rows = asked(connection, scope, statements.OF_SLOT, the_slot=fact.slot)
    if fact.against is not None:
        rows = [
            row for row in rows if fact.against.casefold() in f"{row.slot} {row.text}".casefold()
        ]
    return rows[0] if rows else None


def _row(
    heard: Heard,
    number: int,
    kind: str,
    text: str,
    importance: float,
    slot: str | None = None,
    replaced_by: str | None = None,
) -> Row:
    return Row(
        id=new_id(),
        kind=kind,
        number=number,
        role=heard.role[:16],
        speaker=heard.speaker[:255],
        text=text,
        slot=slot,
        conversation_id=heard.conversation_id,
        message_id=heard.message_id,
        importance=importance,
        replaced_by=replaced_by,
        corrected=False,
        created=heard.at,
    )


def replaced(connection: Connection, scope: Scope, newest: Row) -> list[Row]:
    """The facts that one has replaced, and those that they had."""
    found: list[Row] = []
    ahead = [newest.id]
    while ahead:
        rows = fetch(connection, scope, table.c.replaced_by.in_(ahead[:MANY]))
        ahead = [*ahead[MANY:], *(row.id for row in rows)]
        found += rows
    return found


def of_messages(connection: Connection, scope: Scope, message_ids: Iterable[str]) -> list[Row]:
    """Everything that came from these messages."""
    found: list[Row] = []
    for part in parts(message_ids):
        found += asked(connection, scope, statements.OF_MESSAGES, the_messages=part)
    return found


def by_ids(connection: Connection, scope: Scope, ids: Iterable[str]) -> list[Row]:
    """Memories by their ids, in any order; those of other scopes are not seen."""
    found: list[Row] = []
    for part in parts(ids):
        found += asked(connection, scope, statements.BY_IDS, the_ids=part)
    return found


def beside(connection: Connection, scope: Scope, rows: Iterable[Row], reach: int) -> list[Row]:
    """The turns up to `reach` places before and after these, in the same conversations."""
    places = {
        (row.conversation_id, row.number + step)
        for row in rows
        for step in range(-reach, reach + 1)
    }
    numbers = sorted({number for _, number in places})
    found: list[Row] = []
    for part in parts(numbers):
        found += asked(connection, scope, statements.BESIDE, the_numbers=part)
    return [row for row in found if (row.conversation_id, row.number) in places]


def between(
    connection: Connection, scope: Scope, bounds: Sequence[tuple[float, float]], limit: int
) -> list[Row]:
    """The newest turns of these times (seconds since 1970; the end is not within)."""
    times = [and_(table.c.created >= first, table.c.created < after) for first, after in bounds]
    return fetch(
        connection, scope, table.c.kind == "turn", or_(*times),
        order=[table.c.created.desc()], limit=limit,
    )  # fmt: skip


def newest_facts(connection: Connection, scope: Scope) -> list[Row]:
    """The facts that count, the newest first, up to FACTS."""
    return asked(connection, scope, statements.NEWEST_FACTS)


def outdated(connection: Connection, scope: Scope, message_ids: Iterable[str]) -> set[str]:
    """Those of these messages that said a fact which was replaced or corrected since."""
    found: set[str] = set()
    for part in parts(message_ids):
        values = _with(scope, {"the_messages": part})
        found.update(map(str, connection.scalars(statements.OUTDATED, values)))
    return found


def remove(connection: Connection, scope: Scope, rows: Iterable[Row]) -> None:
    """Delete rows. A fact that only a deleted one replaced counts again."""
    rows = list(rows)
    going = {row.id: row for row in rows}
    for row in rows:
        heir = row.replaced_by
        while heir in going:
            heir = going[heir].replaced_by
        connection.execute(
            update(table)
            .where(within(scope), table.c.replaced_by == row.id)
            .values(replaced_by=heir)
        )
    for part in parts(going):
        connection.execute(delete(table).where(within(scope), table.c.id.in_(part)))


def bury(connection: Connection, scope: Scope, message_ids: Iterable[str | None]) -> None:
    """Remember of these messages nothing but that they are not to be remembered."""
    for message_id in {one for one in message_ids if one}:
        connection.execute(
            insert(table).values(
                id=new_id(), user_id=scope.user, character=scope.character, kind="gone", number=-1,
                role="", speaker="", text="", slot=None, conversation_id=None,
                message_id=message_id, importance=0.0, replaced_by=None, corrected=False, created=0.0,
            )
        )  # fmt: skip


def parts(values: Iterable[Any]) -> list[list[Any]]:
    """As many at a time as every database takes in one query."""
    values = list(values)
    return [values[start : start + MANY] for start in range(0, len(values), MANY)]


def _with(scope: Scope, values: dict[str, Any]) -> dict[str, Any]:
    return {"the_user": scope.user, "the_character": scope.character, **values}


def _plain(text: str) -> str:
    return "".join(text.casefold().split()).rstrip("。.!！~～")
