"""Conversations in the database: a tree of messages each, of which one branch is shown.

Every function takes the user and finds nothing of anybody else's: a guessed id is answered as one that
does not exist. Knows nothing of how a reply is made, nor of pages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.sql import ColumnElement

from elysia.chat.tree import (
    CUT,
    STOPPED,
    WHOLE,
    WRITING,
    Conversation,
    Line,
    branch_of,
    newest_end,
)
from elysia.chat.writer import this_process, writes_still
from elysia.core.errors import StoreError
from elysia.store.database import Database
from elysia.store.tables import conversations, messages, new_id, receipts

LONGEST_TITLE = 60
ENDED = "The program ended while she was writing. Try again."


class Conversations:
    """The tables `conversations` and `messages`. May be used from several threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writer = this_process()

    def new(
        self, user: str, guests: Sequence[str], title: str, settings: Mapping[str, Any]
    ) -> Conversation:
        """An empty conversation."""
        now = time.time()
        row = {
            "id": new_id(), "user_id": user, "title": title[:LONGEST_TITLE], "guests": list(guests),
            "settings": dict(settings), "head": None, "created": now, "updated": now,
        }  # fmt: skip
        with self._database.write() as connection:
            connection.execute(insert(conversations).values(row))
        return self.get(user, str(row["id"]))

    def get(self, user: str, id: str) -> Conversation:
        """One of the user's; StoreError otherwise."""
        with self._database.read() as connection:
            return _conversation(_owned(connection, user, id))

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
            return [_conversation(row) for row in connection.execute(query)]

    def change(self, user: str, id: str, **values: Any) -> Conversation:
        """Set a title, settings or guests."""
        if "title" in values:
            values["title"] = values["title"].strip()[:LONGEST_TITLE] or "…"
        with self._database.write() as connection:
            _owned(connection, user, id, alone=True)
            connection.execute(
                update(conversations).where(conversations.c.id == id).values(**values)
            )
        return self.get(user, id)

    def remove(self, user: str, id: str) -> list[str]:
        """Delete a conversation for good; the ids of the messages that were in it."""
        with self._database.write() as connection:
            _owned(connection, user, id, alone=True)
            gone = connection.execute(
                select(messages.c.id).where(messages.c.conversation_id == id)
            ).scalars()
            ids = list(gone)
            connection.execute(delete(messages).where(messages.c.conversation_id == id))
            connection.execute(delete(conversations).where(conversations.c.id == id))
        return ids

    def branch(self, user: str, id: str) -> list[Line]:
        """The messages from the first to the head, each with its siblings."""
        with self._database.read() as connection:
            head = _owned(connection, user, id).head
            tree = _tree(connection, id)
        return branch_of(tree, head)

    def path(self, user: str, id: str, message: str | None) -> list[Line]:
        """The messages from the first to this one, whichever branch is shown."""
        with self._database.read() as connection:
            _owned(connection, user, id)
            return branch_of(_tree(connection, id), message)

    def ids(self, user: str, id: str) -> list[str]:
        """The ids of every message, of all branches."""
        with self._database.read() as connection:
            _owned(connection, user, id)
            return list(_tree(connection, id))

    def line(self, user: str, id: str, message: str) -> Line:
        """One message of the conversation, of any branch."""
        with self._database.read() as connection:
            _owned(connection, user, id)
            tree = _tree(connection, id)
        if message not in tree:
            raise StoreError("There is no such message in this conversation.")
        return tree[message]

    def add(
        self, user: str, id: str, lines: Sequence[Mapping[str, Any]], *, parent: str | None
    ) -> list[str]:
        """Append a chain of messages below `parent`, and show it. All are kept, or none.

        Each mapping has role and text, and may have speaker, state and details; one in the state
        'writing' is marked as this process's.
        """
        with self._database.write() as connection:
            _owned(connection, user, id, alone=True)
            if parent is not None and parent not in _tree(connection, id):
                raise StoreError("There is no such message in this conversation.")
            last = select(func.max(messages.c.number)).where(messages.c.conversation_id == id)
            number = (connection.execute(last).scalar() or 0) + 1
            made: list[str] = []
            for offset, line in enumerate(lines):
                key = new_id()
                state = line.get("state", WHOLE)
                connection.execute(
                    insert(messages).values(
                        id=key, conversation_id=id, parent_id=parent, number=number + offset,
                        role=line["role"], speaker=line.get("speaker"), text=line["text"],
                        state=state, fault=line.get("fault"),
                        writer=self.writer if state == WRITING else None,
                        details=dict(line.get("details") or {}),
                        created=line.get("created") or time.time(),
                    )
                )  # fmt: skip
                made.append(key)
                parent = key
            _show(connection, id, parent)
        return made

    def show(self, user: str, id: str, message: str | None) -> None:
        """Make the branch through `message` the one that is shown, down to its newest end."""
        with self._database.write() as connection:
            _owned(connection, user, id, alone=True)
            tree = _tree(connection, id)
            if message is not None and message not in tree:
                raise StoreError("There is no such message in this conversation.")
            _show(connection, id, newest_end(tree, message) if message else None)

    def rewind(self, user: str, id: str, message: str | None) -> None:
        """Show the branch up to `message` only. What is below it stays in the tree."""
        with self._database.write() as connection:
            _owned(connection, user, id, alone=True)
            if message is not None and message not in _tree(connection, id):
                raise StoreError("There is no such message in this conversation.")
            _show(connection, id, message)

    def delete(self, user: str, id: str, message: str) -> list[str]:
        """Delete a message and everything below it, for good; the ids that are gone."""
        with self._database.write() as connection:
            head = _owned(connection, user, id, alone=True).head
            tree = _tree(connection, id)
            if message not in tree:
                raise StoreError("There is no such message in this conversation.")
            gone = {message}
            for key, line in tree.items():  # parents come before children
                if line.parent in gone:
                    gone.add(key)
            if head in gone:
                above = tree[message].parent
                others = [key for key in tree[message].siblings if key != message]
                left = {key: line for key, line in tree.items() if key not in gone}
                _show(connection, id, newest_end(left, others[-1]) if others else above)
            connection.execute(delete(messages).where(messages.c.id.in_(gone)))
        return list(gone)

    # What a reply's writer needs. It was allowed to write when the reply was begun.

    def write(self, message: str, text: str) -> bool:
        """Keep the text of a reply so far; False when somebody has asked it to stop, or it is gone."""
        with self._database.write() as connection:
            done = connection.execute(
                update(messages)
                .where(messages.c.id == message, messages.c.state == WRITING)
                .values(text=text)
            )
            return bool(done.rowcount)

    def finish(
        self, message: str, text: str, state: str, fault: str | None, details: Mapping[str, Any]
    ) -> None:
        """The end of a reply."""
        with self._database.write() as connection:
            connection.execute(
                update(messages)
                .where(messages.c.id == message)
                .values(text=text, state=state, fault=fault, writer=None, details=dict(details))
            )

    def keep_receipt(self, message: str, receipt: Mapping[str, Any]) -> None:
        """What entered a reply's prompt."""
        with self._database.write() as connection:
            if connection.execute(select(messages.c.id).where(messages.c.id == message)).first():
                connection.execute(delete(receipts).where(receipts.c.message_id == message))
                connection.execute(
                    insert(receipts).values(message_id=message, receipt=dict(receipt))
                )

    def receipt(self, message: str) -> dict[str, Any]:
        """What entered a reply's prompt; {} when nothing was kept. Ask `line` first whose it is."""
        query = select(receipts.c.receipt).where(receipts.c.message_id == message)
        with self._database.read() as connection:
            return dict(connection.execute(query).scalar() or {})

    def stop(self, user: str, id: str) -> None:
        """Ask every reply of the conversation to stop, whichever process writes it."""
        with self._database.write() as connection:
            _owned(connection, user, id, alone=True)
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
        dead = [row.id for row in rows if not writes_still(row.writer or "")]
        if dead:
            with self._database.write() as connection:
                connection.execute(
                    update(messages)
                    .where(messages.c.id.in_(dead), messages.c.state == WRITING)
                    .values(state=CUT, fault=ENDED, writer=None)
                )
        return len(dead)


def _owned(connection: Connection, user: str, id: str, *, alone: bool = False) -> Row[Any]:
    """The conversation's row; with `alone`, other transactions that ask so wait (SQLite's do anyway)."""
    query = select(conversations).where(conversations.c.id == id, conversations.c.user_id == user)
    row = connection.execute(query.with_for_update() if alone else query).first()
    if row is None:
        raise StoreError("There is no such conversation.")
    return row


def _conversation(row: Row[Any]) -> Conversation:
    return Conversation(
        row.id, row.user_id, row.title, tuple(row.guests), row.settings, row.head,
        row.created, row.updated,
    )  # fmt: skip


def _tree(connection: Connection, id: str) -> dict[str, Line]:
    """Every message by id, in the order they were begun, so parents come first."""
    rows = connection.execute(
        select(messages).where(messages.c.conversation_id == id).order_by(messages.c.number)
    ).all()
    below: dict[str | None, list[str]] = {}
    for row in rows:
        below.setdefault(row.parent_id, []).append(row.id)
    return {
        row.id: Line(
            row.id, row.parent_id, row.role, row.speaker, row.text, row.state, row.fault,
            row.details, row.created, row.number, tuple(below[row.parent_id]),
        )
        for row in rows
    }  # fmt: skip


def _show(connection: Connection, id: str, head: str | None) -> None:
    connection.execute(
        update(conversations).where(conversations.c.id == id).values(head=head, updated=time.time())
    )
