"""The statements that every turn makes, put together once; it takes longer than to answer them.

`the_user` and `the_character` are the scope; `the_ids` and the like are lists. Knows nothing of what
asks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from elysia.core.errors import MemoryFault
from elysia.memory.base import Memory, MemoryInput, MemoryKind, MemoryScope
from elysia.memory.extract import UserFact
from elysia.store.tables import memories as table
from elysia.store.tables import new_id

COLUMNS = (
    "id", "kind", "number", "role", "speaker", "text", "slot", "conversation_id", "message_id",
    "importance", "replaced_by", "corrected", "created",
)  # fmt: skip
MAX_RANKED_FACTS = 60  # newest facts that are always looked at

_USER: BindParameter[str] = bindparam("the_user")
_CHARACTER: BindParameter[str] = bindparam("the_character")


def _in_scope_of(user: Any, character: Any, *, last: bool = False) -> ColumnElement[bool]:
    """The condition that every query has. With `last`, no index of the scope serves it.

    Where ids are given, SQLite would rather read the whole scope, which it takes for ten rows.
    """
    if last:
        return and_(table.c.user_id + "" == user, table.c.character + "" == character)
    return and_(table.c.user_id == user, table.c.character == character)


def _select_rows(*conditions: ColumnElement[bool], last: bool = False) -> Select[Any]:
    mine = _in_scope_of(_USER, _CHARACTER, last=last)
    return select(*(table.c[one] for one in COLUMNS)).where(
        mine, table.c.kind != "gone", *conditions
    )


def _in_list(column: Any, name: str) -> ColumnElement[bool]:
    return and_(column.in_(bindparam(name, expanding=True)))


BY_IDS = _select_rows(_in_list(table.c.id, "the_ids"), last=True)
OF_MESSAGES = _select_rows(_in_list(table.c.message_id, "the_messages"), last=True)
BESIDE = _select_rows(table.c.kind == "turn", _in_list(table.c.number, "the_numbers"))
NEWEST_FACTS = (
    _select_rows(table.c.kind == "fact", table.c.replaced_by.is_(None))
    .order_by(table.c.number.desc())
    .limit(MAX_RANKED_FACTS)
)
OF_SLOT = _select_rows(
    table.c.kind == "fact", table.c.replaced_by.is_(None), table.c.slot == bindparam("the_slot")
).order_by(table.c.created.desc())
KNOWN_MESSAGES = select(table.c.message_id).where(
    _in_scope_of(_USER, _CHARACTER, last=True),
    table.c.kind.in_(["turn", "gone"]),
    _in_list(table.c.message_id, "the_messages"),
)
LAST_NUMBER = select(func.max(table.c.number)).where(
    _in_scope_of(_USER, _CHARACTER), table.c.kind == "turn"
)
OUTDATED = select(table.c.message_id).where(
    _in_scope_of(_USER, _CHARACTER, last=True),
    table.c.kind == "fact",
    _in_list(table.c.message_id, "the_messages"),
    table.c.replaced_by.is_not(None) | table.c.corrected,
)


MAX_IN_VALUES = 500  # values of one IN
INSERT = insert(table)


@dataclass(frozen=True)
class MemoryRow:
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
        kind: MemoryKind = "fact" if self.kind == "fact" else "turn"
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


def in_scope(scope: MemoryScope) -> ColumnElement[bool]:
    """The condition that every query has."""
    return _in_scope_of(scope.user, scope.character)


def fetch_rows(
    connection: Connection,
    scope: MemoryScope,
    *conditions: ColumnElement[bool],
    order: Sequence[Any] = (),
    limit: int | None = None,
) -> list[MemoryRow]:
    """Rows of a scope; those of forgotten messages never."""
    columns = [table.c[name] for name in COLUMNS]
    query = select(*columns).where(in_scope(scope), table.c.kind != "gone", *conditions)
    return [MemoryRow(*row) for row in connection.execute(query.order_by(*order).limit(limit))]


def run_prepared(
    connection: Connection, scope: MemoryScope, query: Select[Any], **values: Any
) -> list[MemoryRow]:
    """Rows of a scope by one of `memory_repository`."""
    return [MemoryRow(*row) for row in connection.execute(query, _bind(scope, values))]


def get_row(connection: Connection, scope: MemoryScope, identity: str) -> MemoryRow:
    """A memory by its id. MemoryFault when it is not in the scope."""
    found = fetch_rows(connection, scope, table.c.id == identity)
    if not found:
        raise MemoryFault(
            f"There is no memory {identity[:40]!r} here; it may have been forgotten already."
        )
    return found[0]


def find_known_messages(
    connection: Connection, scope: MemoryScope, message_ids: Collection[str]
) -> set[str | None]:
    """Which of these messages were taken in, or forgotten for good."""
    found: set[str | None] = set()
    for part in split_batches(message_ids):
        found.update(connection.scalars(KNOWN_MESSAGES, _bind(scope, {"the_messages": part})))
    return found


def get_next_number(connection: Connection, scope: MemoryScope) -> int:
    """The place of the next message."""
    last = connection.scalar(LAST_NUMBER, _bind(scope, {}))
    return 0 if last is None else int(last) + 1


def build_turn(heard: MemoryInput, number: int, importance: float) -> MemoryRow:
    """A message as a row, not kept yet."""
    return _build_row(heard, number, "turn", heard.text.strip(), importance)


def insert_rows(connection: Connection, scope: MemoryScope, rows: Sequence[MemoryRow]) -> None:
    """Keep new rows."""
    owner = {"user_id": scope.user, "character": scope.character}
    if rows:
        connection.execute(INSERT, [owner | vars(row) for row in rows])


def insert_fact(
    connection: Connection, scope: MemoryScope, heard: MemoryInput, number: int, fact: UserFact
) -> MemoryRow | None:
    """Keep a fact in the place of what it contradicts; None when it is no news."""
    now = _get_current_fact(connection, scope, fact)
    if fact.against is not None and now is None:
        return None
    if now is not None and _normalized(now.text) == _normalized(fact.text):
        return None
    slot = now.slot if now is not None else fact.slot
    late = now is not None and now.created > heard.at  # an older conversation, heard after
    heir = now.id if now is not None and late else None
    row = _build_row(heard, number, "fact", fact.text, fact.importance, slot, heir)
    insert_rows(connection, scope, [row])
    if now is not None and not late:
        connection.execute(update(table).where(table.c.id == now.id).values(replaced_by=row.id))
    return row


def _get_current_fact(
    connection: Connection, scope: MemoryScope, fact: UserFact
) -> MemoryRow | None:
    if fact.slot.endswith("*"):
        rows = fetch_rows(
            connection, scope, table.c.slot.startswith(fact.slot[:-1], autoescape=True),
            table.c.kind == "fact", table.c.replaced_by.is_(None),
            order=[table.c.created.desc()],
        )  # fmt: skip
    else:
        rows = run_prepared(connection, scope, OF_SLOT, the_slot=fact.slot)
    if fact.against is not None:
        rows = [
            row for row in rows if fact.against.casefold() in f"{row.slot} {row.text}".casefold()
        ]
    return rows[0] if rows else None


def _build_row(
    heard: MemoryInput,
    number: int,
    kind: str,
    text: str,
    importance: float,
    slot: str | None = None,
    replaced_by: str | None = None,
) -> MemoryRow:
    return MemoryRow(
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


def fetch_replaced(
    connection: Connection, scope: MemoryScope, newest: MemoryRow
) -> list[MemoryRow]:
    """The facts that one has replaced, and those that they had."""
    found: list[MemoryRow] = []
    ahead = [newest.id]
    while ahead:
        rows = fetch_rows(connection, scope, table.c.replaced_by.in_(ahead[:MAX_IN_VALUES]))
        ahead = [*ahead[MAX_IN_VALUES:], *(row.id for row in rows)]
        found += rows
    return found


def fetch_by_message(
    connection: Connection, scope: MemoryScope, message_ids: Iterable[str]
) -> list[MemoryRow]:
    """Everything that came from these messages."""
    found: list[MemoryRow] = []
    for part in split_batches(message_ids):
        found += run_prepared(connection, scope, OF_MESSAGES, the_messages=part)
    return found


def fetch_by_id(connection: Connection, scope: MemoryScope, ids: Iterable[str]) -> list[MemoryRow]:
    """Memories by their ids, in any order; those of other scopes are not seen."""
    found: list[MemoryRow] = []
    for part in split_batches(ids):
        found += run_prepared(connection, scope, BY_IDS, the_ids=part)
    return found


def fetch_neighbours(
    connection: Connection, scope: MemoryScope, rows: Iterable[MemoryRow], reach: int
) -> list[MemoryRow]:
    """The turns up to `reach` places before and after these, in the same conversations."""
    places = {
        (row.conversation_id, row.number + step)
        for row in rows
        for step in range(-reach, reach + 1)
    }
    numbers = sorted({number for _, number in places})
    found: list[MemoryRow] = []
    for part in split_batches(numbers):
        found += run_prepared(connection, scope, BESIDE, the_numbers=part)
    return [row for row in found if (row.conversation_id, row.number) in places]


def fetch_between(
    connection: Connection, scope: MemoryScope, bounds: Sequence[tuple[float, float]], limit: int
) -> list[MemoryRow]:
    """The newest turns of these times (seconds since 1970; the end is not within)."""
    times = [and_(table.c.created >= first, table.c.created < after) for first, after in bounds]
    return fetch_rows(
        connection, scope, table.c.kind == "turn", or_(*times),
        order=[table.c.created.desc()], limit=limit,
    )  # fmt: skip


def fetch_newest_facts(connection: Connection, scope: MemoryScope) -> list[MemoryRow]:
    """The facts that count, the newest first, up to FACTS."""
    return run_prepared(connection, scope, NEWEST_FACTS)


def find_outdated_messages(
    connection: Connection, scope: MemoryScope, message_ids: Iterable[str]
) -> set[str]:
    """Those of these messages that said a fact which was replaced or corrected since."""
    found: set[str] = set()
    for part in split_batches(message_ids):
        values = _bind(scope, {"the_messages": part})
        found.update(map(str, connection.scalars(OUTDATED, values)))
    return found


def delete_rows(connection: Connection, scope: MemoryScope, rows: Iterable[MemoryRow]) -> None:
    """Delete rows. A fact that only a deleted one replaced counts again."""
    rows = list(rows)
    going = {row.id: row for row in rows}
    for row in rows:
        heir = row.replaced_by
        while heir in going:
            heir = going[heir].replaced_by
        connection.execute(
            update(table)
            .where(in_scope(scope), table.c.replaced_by == row.id)
            .values(replaced_by=heir)
        )
    for part in split_batches(going):
        connection.execute(delete(table).where(in_scope(scope), table.c.id.in_(part)))


def mark_forgotten(
    connection: Connection, scope: MemoryScope, message_ids: Iterable[str | None]
) -> None:
    """Remember of these messages nothing but that they are not to be remembered."""
    for message_id in {one for one in message_ids if one}:
        connection.execute(
            insert(table).values(
                id=new_id(), user_id=scope.user, character=scope.character, kind="gone", number=-1,
                role="", speaker="", text="", slot=None, conversation_id=None,
                message_id=message_id, importance=0.0, replaced_by=None, corrected=False, created=0.0,
            )
        )  # fmt: skip


def split_batches(values: Iterable[Any]) -> list[list[Any]]:
    """As many at a time as every database takes in one query."""
    values = list(values)
    return [values[start : start + MAX_IN_VALUES] for start in range(0, len(values), MAX_IN_VALUES)]


def _bind(scope: MemoryScope, values: dict[str, Any]) -> dict[str, Any]:
    return {"the_user": scope.user, "the_character": scope.character, **values}


def _normalized(text: str) -> str:
    return "".join(text.casefold().split()).rstrip("。.!！~～")
