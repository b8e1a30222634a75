"""The statements that every turn makes, put together once; it takes longer than to answer them.

`the_user` and `the_character` are the scope; `the_ids` and the like are lists. Knows nothing of what
asks.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, and_, bindparam, func, select

from elysia.store.tables import memories as table

COLUMNS = (
    "id", "kind", "number", "role", "speaker", "text", "slot", "conversation_id", "message_id",
    "importance", "replaced_by", "corrected", "created",
)  # fmt: skip
FACTS = 60  # newest facts that are always looked at

_USER: BindParameter[str] = bindparam("the_user")
_CHARACTER: BindParameter[str] = bindparam("the_character")


def within(user: Any, character: Any, *, last: bool = False) -> ColumnElement[bool]:
    """The condition that every query has. With `last`, no index of the scope serves it.

    Where ids are given, SQLite would rather read the whole scope, which it takes for ten rows.
    """
    if last:
        return and_(table.c.user_id + "" == user, table.c.character + "" == character)
    return and_(table.c.user_id == user, table.c.character == character)


def _rows(*conditions: ColumnElement[bool], last: bool = False) -> Select[Any]:
    mine = within(_USER, _CHARACTER, last=last)
    return select(*(table.c[one] for one in COLUMNS)).where(
        mine, table.c.kind != "gone", *conditions
    )


def _listed(column: Any, name: str) -> ColumnElement[bool]:
    return and_(column.in_(bindparam(name, expanding=True)))


BY_IDS = _rows(_listed(table.c.id, "the_ids"), last=True)
OF_MESSAGES = _rows(_listed(table.c.message_id, "the_messages"), last=True)
BESIDE = _rows(table.c.kind == "turn", _listed(table.c.number, "the_numbers"))
NEWEST_FACTS = (
    _rows(table.c.kind == "fact", table.c.replaced_by.is_(None))
    .order_by(table.c.number.desc())
    .limit(FACTS)
)
OF_SLOT = _rows(
    table.c.kind == "fact", table.c.replaced_by.is_(None), table.c.slot == bindparam("the_slot")
).order_by(table.c.created.desc())
HEARD = select(table.c.message_id).where(
    within(_USER, _CHARACTER, last=True),
    table.c.kind.in_(["turn", "gone"]),
    _listed(table.c.message_id, "the_messages"),
)
LAST_NUMBER = select(func.max(table.c.number)).where(
    within(_USER, _CHARACTER), table.c.kind == "turn"
)
OUTDATED = select(table.c.message_id).where(
    within(_USER, _CHARACTER, last=True),
    table.c.kind == "fact",
    _listed(table.c.message_id, "the_messages"),
    table.c.replaced_by.is_not(None) | table.c.corrected,
)
