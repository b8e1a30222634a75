"""The statements that every turn makes, put together once.

SQLAlchemy takes several times as long to put a statement together as SQLite to answer it, and with
many users that is most of a turn. Their values come as parameters: `the_id` is a conversation's,
`the_message` a message's. Knows nothing of what asks.
"""

from __future__ import annotations

from sqlalchemy import BindParameter, bindparam, delete, func, insert, literal, select, update

from elysia.chat.tree import WRITING
from elysia.store.tables import conversations, messages, receipts

_ID: BindParameter[str] = bindparam("the_id")
_MESSAGE: BindParameter[str] = bindparam("the_message")
_IN = messages.c.conversation_id == _ID
_IT = messages.c.id == _MESSAGE
_COLUMNS = (
    messages.c.id, messages.c.parent_id, messages.c.role, messages.c.speaker, messages.c.text,
    messages.c.state, messages.c.fault, messages.c.details, messages.c.created, messages.c.number,
)  # fmt: skip

OWNED = select(conversations).where(
    conversations.c.id == _ID, conversations.c.user_id == bindparam("the_user")
)
OWNED_ALONE = OWNED.with_for_update()
# A message's columns are those of `tree.Line`, without its siblings.
TREE = select(*_COLUMNS).where(_IN).order_by(messages.c.number)
LINE = select(*_COLUMNS).where(_IN, _IT)
PLACE = select(messages.c.id).where(_IN, _IT)
SIBLINGS = (
    select(messages.c.id)
    .where(_IN, messages.c.parent_id.is_not_distinct_from(bindparam("the_parent")))
    .order_by(messages.c.number)
)
# From `the_message` upwards, `the_count` messages, whatever else the conversation has.
_up = (
    select(messages.c.id, messages.c.parent_id, literal(1).label("height"))
    .where(_IN, _IT)
    .cte("up", recursive=True)
)
_up = _up.union_all(
    select(messages.c.id, messages.c.parent_id, _up.c.height + 1).where(
        messages.c.id == _up.c.parent_id, _up.c.height < bindparam("the_count")
    )
)
NEWEST = select(*_COLUMNS).join(_up, _up.c.id == messages.c.id).order_by(messages.c.number)
LAST_NUMBER = select(func.max(messages.c.number)).where(_IN)
IS_WRITING = select(messages.c.id).where(_IN, messages.c.state == WRITING).limit(1)
ADD = insert(messages)
SHOW = (
    update(conversations)
    .where(conversations.c.id == _ID)
    .values(head=bindparam("the_head"), updated=bindparam("now"))
)
WRITE = (
    update(messages)
    .where(_IT, messages.c.state == WRITING)
    .values(text=bindparam("the_text"))
)  # fmt: skip
FINISH = (
    update(messages)
    .where(_IT)
    .values(
        text=bindparam("the_text"), state=bindparam("the_state"), fault=bindparam("the_fault"),
        details=bindparam("the_details"), writer=None,
    )
)  # fmt: skip
RECEIPT = select(receipts.c.receipt).where(receipts.c.message_id == _MESSAGE)
NO_RECEIPT = delete(receipts).where(receipts.c.message_id == _MESSAGE)
KEEP_RECEIPT = insert(receipts)
