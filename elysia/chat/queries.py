"""The SQL of every turn, built once.

SQLAlchemy takes several times as long to build a statement as SQLite to answer it, and with many users
that was most of a turn. The values are parameters: `the_id` is a conversation's, `the_message` a
message's.
"""

from __future__ import annotations

from sqlalchemy import BindParameter, bindparam, delete, func, insert, literal, select, update

from elysia.chat.message_tree import MessageState
from elysia.store.tables import conversations, messages, receipts

_CONVERSATION: BindParameter[str] = bindparam("the_id")
_MESSAGE: BindParameter[str] = bindparam("the_message")
_IN_CONVERSATION = messages.c.conversation_id == _CONVERSATION
_IS_MESSAGE = messages.c.id == _MESSAGE
_COLUMNS = (
    messages.c.id, messages.c.parent_id, messages.c.role, messages.c.speaker, messages.c.text,
    messages.c.state, messages.c.fault, messages.c.details, messages.c.created, messages.c.number,
)  # fmt: skip

SELECT_CONVERSATION = select(conversations).where(
    conversations.c.id == _CONVERSATION, conversations.c.user_id == bindparam("the_user")
)
LOCK_CONVERSATION = SELECT_CONVERSATION.with_for_update()
# The columns are the fields of `ChatMessage` in their order, without the siblings.
SELECT_TREE = select(*_COLUMNS).where(_IN_CONVERSATION).order_by(messages.c.number)
SELECT_MESSAGE = select(*_COLUMNS).where(_IN_CONVERSATION, _IS_MESSAGE)
SELECT_ID = select(messages.c.id).where(_IN_CONVERSATION, _IS_MESSAGE)
SELECT_SIBLINGS = (
    select(messages.c.id)
    .where(_IN_CONVERSATION, messages.c.parent_id.is_not_distinct_from(bindparam("the_parent")))
    .order_by(messages.c.number)
)
# From `the_message` upwards, `the_count` messages, whatever else the conversation has.
_ancestors = (
    select(messages.c.id, messages.c.parent_id, literal(1).label("height"))
    .where(_IN_CONVERSATION, _IS_MESSAGE)
    .cte("up", recursive=True)
)
_ancestors = _ancestors.union_all(
    select(messages.c.id, messages.c.parent_id, _ancestors.c.height + 1).where(
        messages.c.id == _ancestors.c.parent_id, _ancestors.c.height < bindparam("the_count")
    )
)
SELECT_NEWEST = (
    select(*_COLUMNS).join(_ancestors, _ancestors.c.id == messages.c.id).order_by(messages.c.number)
)
SELECT_LAST_NUMBER = select(func.max(messages.c.number)).where(_IN_CONVERSATION)
SELECT_WRITING = (
    select(messages.c.id)
    .where(_IN_CONVERSATION, messages.c.state == MessageState.WRITING.value)
    .limit(1)
)
INSERT_MESSAGES = insert(messages)
UPDATE_HEAD = (
    update(conversations)
    .where(conversations.c.id == _CONVERSATION)
    .values(head=bindparam("the_head"), updated=bindparam("now"))
)
UPDATE_TEXT = (
    update(messages)
    .where(_IS_MESSAGE, messages.c.state == MessageState.WRITING.value)
    .values(text=bindparam("the_text"))
)  # fmt: skip
FINISH_MESSAGE = (
    update(messages)
    .where(_IS_MESSAGE)
    .values(
        text=bindparam("the_text"), state=bindparam("the_state"), fault=bindparam("the_fault"),
        details=bindparam("the_details"), writer=None,
    )
)  # fmt: skip
SELECT_BREAKDOWN = select(receipts.c.receipt).where(receipts.c.message_id == _MESSAGE)
DELETE_BREAKDOWN = delete(receipts).where(receipts.c.message_id == _MESSAGE)
INSERT_BREAKDOWN = insert(receipts)
