"""Conversations in the database: a tree of messages each, of which one branch is shown.

Every function takes the user and finds nothing of anybody else's: a guessed id is answered as one that
does not exist. Knows nothing of how a reply is made, nor of pages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.sql import ColumnElement

from elysia.chat import queries
from elysia.chat.message_tree import (
    CUT,
    STOPPED,
    WHOLE,
    WRITING,
    ChatMessage,
    Conversation,
    find_newest_leaf,
    get_branch,
)
from elysia.chat.process_token import get_process_token, is_alive
from elysia.core.errors import StoreError
from elysia.store.database import Database
from elysia.store.tables import conversations, messages, new_id

MAX_TITLE_LENGTH = 60
NO_MESSAGE = "There is no such message in this conversation."
ENDED = "The program ended while she was writing. Try again."


class ConversationStore:
    """The tables `conversations` and `messages`. May be used from several threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writer = get_process_token()

    def new(
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
        """One of the user's; StoreError otherwise."""
        with self._database.read() as connection:
            return _parse_conversation(_require_conversation(connection, user, id))

    def all(self, user: str, search: str = "") -> list[Conversation]:
        """The user's, the last used first; with `search`, those with it in the title or a message."""
        wanted: ColumnElement[bool] = conversations.c.user_id == user
        if search.strip():
            words = search.strip()
            said = (
                select(messages.c.id)
                .where(messages.c.conversation_id == conversations.c.id)
                .where(messages.c.text.icontains(words, autoescape=True))
            )
            wanted = wanted & (
                conversations.c.title.icontains(words, autoescape=True) | said.exists()
            )
        query = select(conversations).where(wanted).order_by(conversations.c.updated.desc())
        with self._database.read() as connection:
            return [_parse_conversation(row) for row in connection.execute(query)]

    def change(self, user: str, id: str, **values: Any) -> Conversation:
        """Set a title, settings or guests."""
        if "title" in values:
            values["title"] = values["title"].strip()[:MAX_TITLE_LENGTH] or "…"
        with self._database.write() as connection:
            _require_conversation(connection, user, id, alone=True)
            connection.execute(
                update(conversations).where(conversations.c.id == id).values(**values)
            )
        return self.get(user, id)

    def remove(self, user: str, id: str) -> list[str]:
        """Delete a conversation for good; the ids of the messages that were in it."""
        with self._database.write() as connection:
            _require_conversation(connection, user, id, alone=True)
            gone = connection.execute(
                select(messages.c.id).where(messages.c.conversation_id == id)
            ).scalars()
            ids = list(gone)
            connection.execute(delete(messages).where(messages.c.conversation_id == id))
            connection.execute(delete(conversations).where(conversations.c.id == id))
        return ids

    def branch(self, user: str, id: str) -> list[ChatMessage]:
        """The messages from the first to the head, each with its siblings."""
        with self._database.read() as connection:
            head = _require_conversation(connection, user, id).head
            tree = _load_tree(connection, id)
        return get_branch(tree, head)

    def newest(self, user: str, id: str, count: int) -> list[ChatMessage]:
        """The last `count` of the branch that is shown, without their siblings; the cost does not
        grow with the conversation.
        """
        with self._database.read() as connection:
            head = _require_conversation(connection, user, id).head
            values = {"the_id": id, "the_message": head, "the_count": count}
            return [
                _parse_message(row, ()) for row in connection.execute(queries.SELECT_NEWEST, values)
            ]

    def path(self, user: str, id: str, message: str | None) -> list[ChatMessage]:
        """The messages from the first to this one, whichever branch is shown."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            return get_branch(_load_tree(connection, id), message)

    def ids(self, user: str, id: str) -> list[str]:
        """The ids of every message, of all branches."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            return list(_load_tree(connection, id))

    def line(self, user: str, id: str, message: str) -> ChatMessage:
        """One message of the conversation, of any branch."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            row = connection.execute(
                queries.SELECT_MESSAGE, {"the_id": id, "the_message": message}
            ).first()
            if row is None:
                raise StoreError(NO_MESSAGE)
            beside = connection.scalars(
                queries.SELECT_SIBLINGS, {"the_id": id, "the_parent": row.parent_id}
            )
            return _parse_message(row, tuple(beside))

    def is_busy(self, user: str, id: str) -> bool:
        """Whether a reply is being written in the conversation, by whichever process."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            return connection.execute(queries.SELECT_WRITING, {"the_id": id}).first() is not None

    def add(
        self, user: str, id: str, lines: Sequence[Mapping[str, Any]], *, parent: str | None
    ) -> list[str]:
        """Append a chain of messages below `parent`, and show it. All are kept, or none.

        Each mapping has role and text, and may have speaker, state and details; one in the state
        'writing' is marked as this process's.
        """
        with self._database.write() as connection:
            _require_conversation(connection, user, id, alone=True)
            if parent is not None:
                _require_message(connection, id, parent)
            last = connection.scalar(queries.SELECT_LAST_NUMBER, {"the_id": id}) or 0
            rows = []
            for number, line in enumerate(lines, last + 1):
                state = line.get("state", WHOLE)
                row = {
                    "id": new_id(), "conversation_id": id, "parent_id": parent, "number": number,
                    "role": line["role"], "speaker": line.get("speaker"), "text": line["text"],
                    "state": state, "fault": line.get("fault"),
                    "writer": self.writer if state == WRITING else None,
                    "details": dict(line.get("details") or {}),
                    "created": line.get("created") or time.time(),
                }  # fmt: skip
                rows.append(row)
                parent = str(row["id"])
            if rows:
                connection.execute(queries.INSERT_MESSAGES, rows)
            _set_head(connection, id, parent)
        return [str(row["id"]) for row in rows]

    def show(self, user: str, id: str, message: str | None) -> None:
        """Make the branch through `message` the one that is shown, down to its newest end."""
        with self._database.write() as connection:
            _require_conversation(connection, user, id, alone=True)
            tree = _load_tree(connection, id)
            if message is not None and message not in tree:
                raise StoreError(NO_MESSAGE)
            _set_head(connection, id, find_newest_leaf(tree, message) if message else None)

    def rewind(self, user: str, id: str, message: str | None) -> None:
        """Show the branch up to `message` only. What is below it stays in the tree."""
        with self._database.write() as connection:
            _require_conversation(connection, user, id, alone=True)
            if message is not None:
                _require_message(connection, id, message)
            _set_head(connection, id, message)

    def delete(self, user: str, id: str, message: str) -> list[str]:
        """Delete a message and everything below it, for good; the ids that are gone."""
        with self._database.write() as connection:
            head = _require_conversation(connection, user, id, alone=True).head
            tree = _load_tree(connection, id)
            if message not in tree:
                raise StoreError(NO_MESSAGE)
            gone = {message}
            for key, line in tree.items():  # parents come before children
                if line.parent in gone:
                    gone.add(key)
            if head in gone:
                above = tree[message].parent
                others = [key for key in tree[message].siblings if key != message]
                left = {key: line for key, line in tree.items() if key not in gone}
                _set_head(connection, id, find_newest_leaf(left, others[-1]) if others else above)
            connection.execute(delete(messages).where(messages.c.id.in_(gone)))
        return list(gone)

    # What a reply's writer needs. It was allowed to write when the reply was begun.

    def write(self, message: str, text: str, receipt: Mapping[str, Any] | None = None) -> bool:
        """Keep the text of a reply so far, and what entered its prompt, if that is not kept yet;
        False when somebody has asked it to stop, or it is gone.
        """
        with self._database.write() as connection:
            done = connection.execute(
                queries.UPDATE_TEXT, {"the_message": message, "the_text": text}
            ).rowcount
            if done and receipt is not None:
                _save_breakdown(connection, message, receipt)
            return bool(done)

    def finish(
        self,
        message: str,
        text: str,
        state: str,
        fault: str | None,
        details: Mapping[str, Any],
        receipt: Mapping[str, Any] | None = None,
    ) -> None:
        """The end of a reply, and its receipt, if that is not kept yet."""
        values = {
            "the_message": message, "the_text": text, "the_state": state, "the_fault": fault,
            "the_details": dict(details),
        }  # fmt: skip
        with self._database.write() as connection:
            done = connection.execute(queries.FINISH_MESSAGE, values).rowcount
            if done and receipt is not None:
                _save_breakdown(connection, message, receipt)

    def get_prompt_breakdown(self, user: str, id: str, message: str) -> dict[str, Any]:
        """What entered a reply's prompt; {} when nothing was kept."""
        with self._database.read() as connection:
            _require_conversation(connection, user, id)
            _require_message(connection, id, message)
            return dict(connection.scalar(queries.SELECT_BREAKDOWN, {"the_message": message}) or {})

    def stop(self, user: str, id: str) -> None:
        """Ask every reply of the conversation to stop, whichever process writes it."""
        with self._database.write() as connection:
            _require_conversation(connection, user, id, alone=True)
            connection.execute(
                update(messages)
                .where(messages.c.conversation_id == id, messages.c.state == WRITING)
                .values(state=STOPPED)
            )

    def mend(self) -> int:
        """Mark replies whose process has ended as cut; how many there were. For the start."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(messages.c.id, messages.c.writer).where(messages.c.state == WRITING)
            ).all()
        dead = [row.id for row in rows if not is_alive(row.writer or "")]
        if dead:
            with self._database.write() as connection:
                connection.execute(
                    update(messages)
                    .where(messages.c.id.in_(dead), messages.c.state == WRITING)
                    .values(state=CUT, fault=ENDED, writer=None)
                )
        return len(dead)


def _require_conversation(
    connection: Connection, user: str, id: str, *, alone: bool = False
) -> Row[Any]:
    """The conversation's row; with `alone`, other transactions that ask so wait (SQLite's do anyway)."""
    query = queries.LOCK_CONVERSATION if alone else queries.SELECT_CONVERSATION
    row = connection.execute(query, {"the_id": id, "the_user": user}).first()
    if row is None:
        raise StoreError("There is no such conversation.")
    return row


def _require_message(connection: Connection, id: str, message: str) -> None:
    """Refuse a message that is not the conversation's."""
    place = {"the_id": id, "the_message": message}
    if connection.execute(queries.SELECT_ID, place).first() is None:
        raise StoreError(NO_MESSAGE)


def _parse_conversation(row: Row[Any]) -> Conversation:
    return Conversation(
        row.id, row.user_id, row.title, tuple(row.guests), row.settings, row.head,
        row.created, row.updated,
    )  # fmt: skip


def _load_tree(connection: Connection, id: str) -> dict[str, ChatMessage]:
    """Every message by id, in the order they were begun, so parents come first."""
    rows = connection.execute(queries.SELECT_TREE, {"the_id": id}).all()
    below: dict[str | None, list[str]] = {}
    for row in rows:
        below.setdefault(row[1], []).append(row[0])
    beside = {parent: tuple(ids) for parent, ids in below.items()}
    return {row[0]: _parse_message(row, beside[row[1]]) for row in rows}


def _parse_message(row: Sequence[Any], siblings: tuple[str, ...]) -> ChatMessage:
    values: tuple[Any, ...] = (*row, siblings)
    return ChatMessage(*values)


def _set_head(connection: Connection, id: str, head: str | None) -> None:
    connection.execute(queries.UPDATE_HEAD, {"the_id": id, "the_head": head, "now": time.time()})


def _save_breakdown(connection: Connection, message: str, receipt: Mapping[str, Any]) -> None:
    connection.execute(queries.DELETE_BREAKDOWN, {"the_message": message})
    connection.execute(queries.INSERT_BREAKDOWN, {"message_id": message, "receipt": dict(receipt)})
