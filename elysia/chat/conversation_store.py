"""Conversations in the database: each a tree of messages, of which one branch is shown.

Every method takes the user's id and finds nothing of another user's: a guessed id is answered like one
that does not exist.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.sql import ColumnElement

from elysia.chat import queries
from elysia.chat.message_tree import (
    ChatMessage,
    Conversation,
    MessageState,
    find_newest_leaf,
    get_branch,
    pack_text,
)
from elysia.chat.process_token import get_process_token, is_alive
from elysia.core.errors import StoreError
from elysia.core.i18n import Text
from elysia.store.database import Database
from elysia.store.tables import conversations, messages, new_id

MAX_TITLE_LENGTH = 60
CUT_SHORT = Text("chat.cut_short")
_STATES = {state.value: state for state in MessageState}


class ConversationStore:
    """The tables `conversations`, `messages` and `receipts`, for several threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writer = get_process_token()

    def create(
        self, user: str, guests: Sequence[str], title: str, settings: Mapping[str, Any]
    ) -> Conversation:
        """An empty conversation."""
        now = time.time()
        row = {
            "id": new_id(), "user_id": user, "title": title[:MAX_TITLE_LENGTH], "guests": list(guests),
            "settings": dict(settings), "head": None, "created": now, "updated": now,
        }  # fmt: skip
        with self._database.write() as connection:
            connection.execute(insert(conversations).values(row))
        return self.get(user, str(row["id"]))

    def get(self, user: str, id: str) -> Conversation:
        """One of the user's conversations; StoreError for any other id."""
        with self._database.read() as connection:
            return _parse_conversation(_require_conversation(connection, user, id))

    def all(self, user: str, search: str = "") -> list[Conversation]:
        """The user's conversations, the last used first; with `search`, those that have it in the title
        or in a message.
        """
        condition: ColumnElement[bool] = conversations.c.user_id == user
        if words := search.strip():
            in_message = (
                select(messages.c.id)
                .where(messages.c.conversation_id == conversations.c.id)
                .where(messages.c.text.icontains(words, autoescape=True))
            )
            in_title = conversations.c.title.icontains(words, autoescape=True)
            condition = condition & (in_title | in_message.exists())
        query = select(conversations).where(condition).order_by(conversations.c.updated.desc())
        with self._database.read() as connection:
            return [_parse_conversation(row) for row in connection.execute(query)]

    def update(self, user: str, id: str, **values: Any) -> Conversation:
        """Set the title, the settings or the guests."""
        if "title" in values:
            values["title"] = values["title"].strip()[:MAX_TITLE_LENGTH] or "…"
        with self._database.write() as connection:
            _require_conversation(connection, user, id, for_update=True)
            connection.execute(
                update(conversations).where(conversations.c.id == id).values(**values)
            )
        return self.get(user, id)

    def delete_conversation(self, user: str, id: str) -> list[str]:
        """Delete a conversation for good; the ids of the messages that were in it."""
        with self._database.write() as connection:
            _require_conversation(connection, user, id, for_update=True)
            query = select(messages.c.id).where(messages.c.conversation_id == id)
            ids = list(connection.scalars(query))
            connection.execute(delete(messages).where(messages.c.conversation_id == id))
            connection.execute(delete(conversations).where(conversations.c.id == id))
        return ids

    def get_branch(self, user: str, id: str) -> list[ChatMessage]:
        """The messages from the first to the head, each with its siblings."""
        with self._database.read() as connection:
            head = _require_conversation(connection, user, id).head
            tree = _load_tree(connection, id)
        return get_branch(tree, head)

    def get_newest(self, user: str, id: str, count: int) -> list[ChatMessage]:
        """The last `count` messages of the branch that is shown, without their siblings. The cost does
        not grow with the conversation.
        """
        with self._database.read() as connection:
            head = _require_conversation(connection, user, id).head
            values = {"the_id": id, "the_message": head, "the_count": count}
            return [
                _parse_message(row, ()) for row in connection.execute(queries.SELECT_NEWEST, values)
            ]

    def get_path(self, user: str, id: str, message: str | None) -> list[ChatMessage]:
        """The messages from the first to this one, whichever branch is shown."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            return get_branch(_load_tree(connection, id), message)

    def get_ids(self, user: str, id: str) -> list[str]:
        """The ids of all messages, on every branch."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            return list(_load_tree(connection, id))

    def get_message(self, user: str, id: str, message: str) -> ChatMessage:
        """One message of the conversation, on any branch."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            row = connection.execute(
                queries.SELECT_MESSAGE, {"the_id": id, "the_message": message}
            ).first()
            if row is None:
                raise StoreError("chat.no_message")
            siblings = connection.scalars(
                queries.SELECT_SIBLINGS, {"the_id": id, "the_parent": row.parent_id}
            )
            return _parse_message(row, tuple(siblings))

    def is_busy(self, user: str, id: str) -> bool:
        """Whether a reply is being written in the conversation, by whichever process."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            return connection.execute(queries.SELECT_WRITING, {"the_id": id}).first() is not None

    def add(
        self, user: str, id: str, drafts: Sequence[Mapping[str, Any]], *, parent: str | None
    ) -> list[str]:
        """Append a chain of messages below `parent`, and show it; their ids. All are stored, or none.

        Each mapping has `role` and `text`, and may have `speaker`, `state`, `details` and `created`; one
        in the state `writing` is marked as written by this process.
        """
        with self._database.write() as connection:
            _require_conversation(connection, user, id, for_update=True)
            if parent is not None:
                _require_message(connection, id, parent)
            last = connection.scalar(queries.SELECT_LAST_NUMBER, {"the_id": id}) or 0
            rows = []
            for number, draft in enumerate(drafts, last + 1):
                state = str(draft.get("state", MessageState.COMPLETE))
                row = {
                    "id": new_id(), "conversation_id": id, "parent_id": parent, "number": number,
                    "role": draft["role"], "speaker": draft.get("speaker"), "text": draft["text"],
                    "state": state, "fault": draft.get("fault"),
                    "writer": self.writer if state == MessageState.WRITING else None,
                    "details": dict(draft.get("details") or {}),
                    "created": draft.get("created") or time.time(),
                }  # fmt: skip
                rows.append(row)
                parent = str(row["id"])
            if rows:
                connection.execute(queries.INSERT_MESSAGES, rows)
            _set_head(connection, id, parent)
        return [str(row["id"]) for row in rows]

    def show_branch(self, user: str, id: str, message: str | None) -> None:
        """Show the branch through `message`, down to its newest leaf."""
        with self._database.write() as connection:
            _require_conversation(connection, user, id, for_update=True)
            tree = _load_tree(connection, id)
            if message is not None and message not in tree:
                raise StoreError("chat.no_message")
            _set_head(connection, id, find_newest_leaf(tree, message) if message else None)

    def rewind(self, user: str, id: str, message: str | None) -> None:
        """Show the branch up to `message` only; what is below it stays in the tree."""
        with self._database.write() as connection:
            _require_conversation(connection, user, id, for_update=True)
            if message is not None:
                _require_message(connection, id, message)
            _set_head(connection, id, message)

    def delete_message(self, user: str, id: str, message: str) -> list[str]:
        """Delete a message and everything below it, for good; the ids of what was deleted."""
        with self._database.write() as connection:
            head = _require_conversation(connection, user, id, for_update=True).head
            tree = _load_tree(connection, id)
            if message not in tree:
                raise StoreError("chat.no_message")
            deleted = {message}
            for key, child in tree.items():  # parents come before children
                if child.parent in deleted:
                    deleted.add(key)
            if head in deleted:
                above = tree[message].parent
                others = [key for key in tree[message].siblings if key != message]
                remaining = {key: child for key, child in tree.items() if key not in deleted}
                _set_head(
                    connection, id, find_newest_leaf(remaining, others[-1]) if others else above
                )
            connection.execute(delete(messages).where(messages.c.id.in_(deleted)))
        return list(deleted)

    # For the worker that writes a reply; it was allowed to when the reply was begun, so that these
    # take no user.

    def save_text(
        self, message: str, text: str, breakdown: Mapping[str, Any] | None = None
    ) -> bool:
        """Store the text of a reply so far, and its prompt breakdown unless that is stored already.

        False when the reply was asked to stop, or was deleted.
        """
        with self._database.write() as connection:
            updated = connection.execute(
                queries.UPDATE_TEXT, {"the_message": message, "the_text": text}
            ).rowcount
            if updated and breakdown is not None:
                _save_breakdown(connection, message, breakdown)
            return bool(updated)

    def finish(
        self,
        message: str,
        text: str,
        state: MessageState,
        fault: str | None,
        details: Mapping[str, Any],
        breakdown: Mapping[str, Any] | None = None,
    ) -> None:
        """Store the end of a reply, and its prompt breakdown unless that is stored already."""
        values = {
            "the_message": message, "the_text": text, "the_state": state.value, "the_fault": fault,
            "the_details": dict(details),
        }  # fmt: skip
        with self._database.write() as connection:
            updated = connection.execute(queries.FINISH_MESSAGE, values).rowcount
            if updated and breakdown is not None:
                _save_breakdown(connection, message, breakdown)

    def get_prompt_breakdown(self, user: str, id: str, message: str) -> dict[str, Any]:
        """What entered a reply's prompt; {} when nothing was stored."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            _require_message(connection, id, message)
            return dict(connection.scalar(queries.SELECT_BREAKDOWN, {"the_message": message}) or {})

    def request_stop(self, user: str, id: str) -> None:
        """Ask every reply of the conversation to stop, whichever process writes it."""
        with self._database.write() as connection:
            _require_conversation(connection, user, id, for_update=True)
            connection.execute(
                update(messages)
                .where(
                    messages.c.conversation_id == id, messages.c.state == MessageState.WRITING.value
                )
                .values(state=MessageState.STOPPED.value)
            )

    def recover_interrupted(self) -> int:
        """Mark replies whose process has ended as cut short; how many there were. For the start."""
        unfinished = messages.c.state == MessageState.WRITING.value
        with self._database.read() as connection:
            query = select(messages.c.id, messages.c.writer, messages.c.details).where(unfinished)
            rows = connection.execute(query).all()
        dead = [row for row in rows if not is_alive(row.writer or "")]
        if dead:
            with self._database.write() as connection:
                for row in dead:
                    values = {
                        "state": MessageState.CUT.value, "fault": str(CUT_SHORT), "writer": None,
                        "details": {**(row.details or {}), "error": pack_text(CUT_SHORT)},
                    }  # fmt: skip
                    connection.execute(
                        update(messages).where(messages.c.id == row.id, unfinished).values(values)
                    )
        return len(dead)


def _require_conversation(
    connection: Connection, user: str, id: str, *, for_update: bool = False
) -> Row[Any]:
    """The conversation's row. With `for_update`, other transactions that ask for it so wait; those of
    SQLite do anyway.
    """
    query = queries.LOCK_CONVERSATION if for_update else queries.SELECT_CONVERSATION
    row = connection.execute(query, {"the_id": id, "the_user": user}).first()
    if row is None:
        raise StoreError("chat.no_conversation")
    return row


def _require_message(connection: Connection, id: str, message: str) -> None:
    """StoreError for a message of another conversation."""
    values = {"the_id": id, "the_message": message}
    if connection.execute(queries.SELECT_ID, values).first() is None:
        raise StoreError("chat.no_message")


def _parse_conversation(row: Row[Any]) -> Conversation:
    return Conversation(
        row.id, row.user_id, row.title, tuple(row.guests), row.settings, row.head,
        row.created, row.updated,
    )  # fmt: skip


def _load_tree(connection: Connection, id: str) -> dict[str, ChatMessage]:
    """Every message by id, in the order they were begun, so parents come first."""
    rows = connection.execute(queries.SELECT_TREE, {"the_id": id}).all()
    # By position, in the order of the query's columns, here and below: this runs for every message of a
    # conversation, several times in a turn, and names take SQLAlchemy several times as long.
    children: dict[str | None, list[str]] = {}
    for row in rows:
        children.setdefault(row[1], []).append(row[0])
    siblings = {parent: tuple(ids) for parent, ids in children.items()}
    return {row[0]: _parse_message(row, siblings[row[1]]) for row in rows}


def _parse_message(row: Sequence[Any], siblings: tuple[str, ...]) -> ChatMessage:
    values: tuple[Any, ...] = (*row[:5], _STATES[row[5]], *row[6:], siblings)
    return ChatMessage(*values)


def _set_head(connection: Connection, id: str, head: str | None) -> None:
    connection.execute(queries.UPDATE_HEAD, {"the_id": id, "the_head": head, "now": time.time()})


def _save_breakdown(connection: Connection, message: str, breakdown: Mapping[str, Any]) -> None:
    connection.execute(queries.DELETE_BREAKDOWN, {"the_message": message})
    connection.execute(
        queries.INSERT_BREAKDOWN, {"message_id": message, "receipt": dict(breakdown)}
    )
