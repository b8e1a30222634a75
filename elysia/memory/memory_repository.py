"""Memories as rows of the database, which is their only source of truth. Every query names the scope.

The queries that every turn makes are built once, as module constants: SQLAlchemy takes longer to build
one than the database to answer it. Their bind parameters `the_user` and `the_character` are the scope.
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
from elysia.memory.extract.slots import UserFact
from elysia.store.tables import memories as table
from elysia.store.tables import new_id

MAX_IN_VALUES = 500  # values of one IN; every supported database takes as many
MAX_RANKED_FACTS = 60  # newest facts, which every recall ranks
COLUMNS = (
    "id", "kind", "number", "role", "speaker", "text", "slot", "conversation_id", "message_id",
    "importance", "replaced_by", "corrected", "created",
)  # fmt: skip

_USER: BindParameter[str] = bindparam("the_user")
_CHARACTER: BindParameter[str] = bindparam("the_character")
_FORGOTTEN = "gone"  # the kind of a row that marks a message as never to be remembered again


def _in_scope(user: Any, character: Any, *, use_index: bool = True) -> ColumnElement[bool]:
    """The condition of every query.

    Without `use_index`, no index of the scope serves it: where ids are given, SQLite would rather scan
    the scope, whose size it underestimates, than look the ids up.
    """
    if use_index:
        return and_(table.c.user_id == user, table.c.character == character)
    return and_(table.c.user_id + "" == user, table.c.character + "" == character)


def _select_rows(*conditions: ColumnElement[bool], use_index: bool = True) -> Select[Any]:
    return select(*(table.c[name] for name in COLUMNS)).where(
        _in_scope(_USER, _CHARACTER, use_index=use_index), table.c.kind != _FORGOTTEN, *conditions
    )


def _in_values(column: Any) -> ColumnElement[bool]:
    return and_(column.in_(bindparam("the_values", expanding=True)))


_IS_FACT = table.c.kind == "fact"
_IS_CURRENT = table.c.replaced_by.is_(None)
_BY_ID = _select_rows(_in_values(table.c.id), use_index=False)
_BY_MESSAGE = _select_rows(_in_values(table.c.message_id), use_index=False)
_BY_NUMBER = _select_rows(table.c.kind == "turn", _in_values(table.c.number))
_NEWEST_FACTS = (
    _select_rows(_IS_FACT, _IS_CURRENT).order_by(table.c.number.desc()).limit(MAX_RANKED_FACTS)
)
_OF_SLOT = _select_rows(_IS_FACT, _IS_CURRENT, table.c.slot == bindparam("the_slot")).order_by(
    table.c.created.desc()
)
_KNOWN_MESSAGES = select(table.c.message_id).where(
    _in_scope(_USER, _CHARACTER, use_index=False),
    table.c.kind.in_(["turn", _FORGOTTEN]),
    _in_values(table.c.message_id),
)
_OUTDATED_MESSAGES = select(table.c.message_id).where(
    _in_scope(_USER, _CHARACTER, use_index=False),
    _IS_FACT,
    _in_values(table.c.message_id),
    table.c.replaced_by.is_not(None) | table.c.corrected,
)
_LAST_NUMBER = select(func.max(table.c.number)).where(
    _in_scope(_USER, _CHARACTER), table.c.kind == "turn"
)
_INSERT = insert(table)


@dataclass(frozen=True)
class MemoryRow:
    """A row of the table. `number`: its message's position in the scope."""

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

    def to_memory(self, *, current: bool = True) -> Memory:
        """The memory that callers see; `current=False` for a turn whose facts were replaced."""
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


class MemoryRepository:
    """The memories of one scope, over one connection."""

    def __init__(self, connection: Connection, scope: MemoryScope) -> None:
        self._connection = connection
        self._scope = scope

    def fetch(
        self, *conditions: ColumnElement[bool], order: Sequence[Any] = (), limit: int | None = None
    ) -> list[MemoryRow]:
        """Rows that meet the conditions; never those of forgotten messages."""
        query = _select_rows(*conditions).order_by(*order).limit(limit)
        return self._run(query)

    def get(self, identity: str) -> MemoryRow:
        """A memory by its id. MemoryFault when it is not in the scope."""
        rows = self.fetch(table.c.id == identity)
        if not rows:
            raise MemoryFault("memory.no_such_memory", id=repr(identity[:40]))
        return rows[0]

    def ids(self) -> set[str]:
        """The id of every memory."""
        in_scope = self._condition()
        query = select(table.c.id).where(in_scope, table.c.kind != _FORGOTTEN)
        return set(self._connection.scalars(query))

    def fetch_by_id(self, ids: Iterable[str]) -> list[MemoryRow]:
        """Memories by their ids, in any order; ids of other scopes are ignored."""
        return self._run_for_values(_BY_ID, ids)

    def fetch_by_message(self, message_ids: Iterable[str]) -> list[MemoryRow]:
        """Everything that came from these messages."""
        return self._run_for_values(_BY_MESSAGE, message_ids)

    def fetch_neighbours(self, rows: Iterable[MemoryRow], reach: int) -> list[MemoryRow]:
        """The turns up to `reach` positions before and after these, in the same conversations."""
        positions = {
            (row.conversation_id, row.number + step)
            for row in rows
            for step in range(-reach, reach + 1)
        }
        turns = self._run_for_values(_BY_NUMBER, sorted({number for _, number in positions}))
        return [row for row in turns if (row.conversation_id, row.number) in positions]

    def fetch_between(self, bounds: Sequence[tuple[float, float]], limit: int) -> list[MemoryRow]:
        """The newest turns of these times (seconds since 1970, the end excluded)."""
        times = [and_(table.c.created >= first, table.c.created < after) for first, after in bounds]
        return self.fetch(
            table.c.kind == "turn", or_(*times), order=[table.c.created.desc()], limit=limit
        )

    def fetch_newest_facts(self) -> list[MemoryRow]:
        """The current facts, newest first, up to MAX_RANKED_FACTS."""
        return self._run(_NEWEST_FACTS)

    def fetch_replaced(self, newest: MemoryRow) -> list[MemoryRow]:
        """The facts that one has replaced, those that they had replaced, and so on."""
        replaced: list[MemoryRow] = []
        ahead = [newest.id]
        while ahead:
            rows = self.fetch(table.c.replaced_by.in_(ahead[:MAX_IN_VALUES]))
            ahead = [*ahead[MAX_IN_VALUES:], *(row.id for row in rows)]
            replaced += rows
        return replaced

    def find_known_messages(self, message_ids: Collection[str]) -> set[str | None]:
        """Which of these messages were remembered before, or forgotten for good."""
        return set(self._scalars_for_values(_KNOWN_MESSAGES, message_ids))

    def find_outdated_messages(self, message_ids: Iterable[str]) -> set[str]:
        """Which of these messages stated a fact that was replaced or corrected since."""
        return set(map(str, self._scalars_for_values(_OUTDATED_MESSAGES, message_ids)))

    def get_next_number(self) -> int:
        """The position of the next message."""
        last = self._connection.scalar(_LAST_NUMBER, self._parameters())
        return 0 if last is None else int(last) + 1

    def insert(self, rows: Sequence[MemoryRow]) -> None:
        """Add new rows."""
        owner = {"user_id": self._scope.user, "character": self._scope.character}
        if rows:
            self._connection.execute(_INSERT, [owner | vars(row) for row in rows])

    def insert_fact(self, message: MemoryInput, number: int, fact: UserFact) -> MemoryRow | None:
        """Add a fact in place of the one it contradicts; None when it tells nothing new."""
        known = self._get_current_fact(fact)
        if fact.against is not None and known is None:
            return None
        if known is not None and _normalize(known.text) == _normalize(fact.text):
            return None
        slot = known.slot if known is not None else fact.slot
        # A message of an older conversation may be remembered after a newer one.
        is_older = known is not None and known.created > message.at
        heir = known.id if known is not None and is_older else None
        row = build_row(message, number, "fact", fact.text, fact.importance, slot, heir)
        self.insert([row])
        if known is not None and not is_older:
            self._connection.execute(
                update(table).where(table.c.id == known.id).values(replaced_by=row.id)
            )
        return row

    def set_text(self, identity: str, text: str) -> None:
        """Replace a memory's text by what the user wrote."""
        self._connection.execute(
            update(table)
            .where(self._condition(), table.c.id == identity)
            .values(text=text, corrected=True)
        )

    def delete(self, rows: Collection[MemoryRow]) -> None:
        """Delete rows. A fact that only a deleted one had replaced becomes current again."""
        deleted = {row.id: row for row in rows}
        for row in rows:
            heir = row.replaced_by
            while heir in deleted:
                heir = deleted[heir].replaced_by
            self._connection.execute(
                update(table)
                .where(self._condition(), table.c.replaced_by == row.id)
                .values(replaced_by=heir)
            )
        for batch in _split_batches(deleted):
            self._connection.execute(delete(table).where(self._condition(), table.c.id.in_(batch)))

    def delete_all(self) -> None:
        """Delete everything of the scope."""
        self._connection.execute(delete(table).where(self._condition()))

    def mark_forgotten(self, message_ids: Iterable[str | None]) -> None:
        """Record that these messages must never be remembered again."""
        for message_id in {identity for identity in message_ids if identity}:
            self._connection.execute(
                insert(table).values(
                    id=new_id(), user_id=self._scope.user, character=self._scope.character,
                    kind=_FORGOTTEN, number=-1, role="", speaker="", text="", slot=None,
                    conversation_id=None, message_id=message_id, importance=0.0, replaced_by=None,
                    corrected=False, created=0.0,
                )
            )  # fmt: skip

    def _get_current_fact(self, fact: UserFact) -> MemoryRow | None:
        """The current fact that `fact` replaces or ends."""
        if fact.slot.endswith("*"):
            rows = self.fetch(
                table.c.slot.startswith(fact.slot[:-1], autoescape=True), _IS_FACT, _IS_CURRENT,
                order=[table.c.created.desc()],
            )  # fmt: skip
        else:
            rows = self._run(_OF_SLOT, the_slot=fact.slot)
        if fact.against is not None:
            word = fact.against.casefold()
            rows = [row for row in rows if word in f"{row.slot} {row.text}".casefold()]
        return rows[0] if rows else None

    def _condition(self) -> ColumnElement[bool]:
        return _in_scope(self._scope.user, self._scope.character)

    def _parameters(self, **values: Any) -> dict[str, Any]:
        return {"the_user": self._scope.user, "the_character": self._scope.character, **values}

    def _run(self, query: Select[Any], **values: Any) -> list[MemoryRow]:
        rows = self._connection.execute(query, self._parameters(**values))
        return [MemoryRow(*row) for row in rows]

    def _run_for_values(self, query: Select[Any], values: Iterable[Any]) -> list[MemoryRow]:
        batches = _split_batches(values)
        return [row for batch in batches for row in self._run(query, the_values=batch)]

    def _scalars_for_values(self, query: Select[Any], values: Iterable[Any]) -> list[Any]:
        return [
            value
            for batch in _split_batches(values)
            for value in self._connection.scalars(query, self._parameters(the_values=batch))
        ]


def list_scopes(connection: Connection) -> list[MemoryScope]:
    """Every scope that has memories."""
    query = select(table.c.user_id, table.c.character).distinct()
    return [MemoryScope(user, character) for user, character in connection.execute(query)]


def build_row(
    message: MemoryInput,
    number: int,
    kind: MemoryKind,
    text: str,
    importance: float,
    slot: str | None = None,
    replaced_by: str | None = None,
) -> MemoryRow:
    """A new row, not inserted yet."""
    return MemoryRow(
        id=new_id(),
        kind=kind,
        number=number,
        role=message.role[:16],
        speaker=message.speaker[:255],
        text=text,
        slot=slot,
        conversation_id=message.conversation_id,
        message_id=message.message_id,
        importance=importance,
        replaced_by=replaced_by,
        corrected=False,
        created=message.at,
    )


def _split_batches(values: Iterable[Any]) -> list[list[Any]]:
    values = list(values)
    return [values[start : start + MAX_IN_VALUES] for start in range(0, len(values), MAX_IN_VALUES)]


def _normalize(text: str) -> str:
    """Two facts that differ only in case, spaces or final punctuation are the same."""
    return "".join(text.casefold().split()).rstrip("。.!！~～")
