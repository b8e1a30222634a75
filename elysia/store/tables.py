"""Every table, in SQLAlchemy's terms: users and their conversations, characters, memories, documents.

Ids are random hex (uuid4), so none can be guessed; times are seconds since 1970 (UTC). A row that
belongs to somebody says to whom, and every query of `chat`, `memory` and `knowledge` asks for it.
"""

from __future__ import annotations

import uuid

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def new_id() -> str:
    """32 random hexadecimal digits."""
    return uuid.uuid4().hex


def _id_column() -> Column[str]:
    return Column("id", String(32), primary_key=True)


def _owner_column() -> Column[str]:
    return Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False)


users = Table(
    "users",
    metadata,
    _id_column(),
    Column("name", String(255), nullable=False, unique=True),
    Column(
        "password", String(255)
    ),  # scrypt's parameters, salt and hash; null: by OpenID, or local
    Column("settings", JSON, nullable=False),
    Column("created", Float, nullable=False),
)

# Cards that a user brought. The bundled ones are files and have no row.
characters = Table(
    "characters",
    metadata,
    _id_column(),
    _owner_column(),
    Column("name", String(255), nullable=False),
    Column("file", String(255), nullable=False),  # its name when it came
    Column("card", LargeBinary, nullable=False),  # the very bytes
    Column("created", Float, nullable=False),
    Index("ix_characters_user", "user_id", "created"),
)

conversations = Table(
    "conversations",
    metadata,
    _id_column(),
    _owner_column(),
    Column("title", String(255), nullable=False),
    Column("guests", JSON, nullable=False),  # keys of its characters; several: a group
    Column("settings", JSON, nullable=False),
    Column("head", String(32)),  # the newest message of the branch that is shown
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Index("ix_conversations_user", "user_id", "updated"),
)

# A tree: siblings are the branches (swipes, edits) of one place.
messages = Table(
    "messages",
    metadata,
    _id_column(),
    Column(
        "conversation_id",
        String(32),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("parent_id", String(32), ForeignKey("messages.id", ondelete="CASCADE")),
    Column("number", Integer, nullable=False),  # the order in which they were begun
    Column("role", String(16), nullable=False),
    Column("speaker", String(255)),  # a character's key; null: the user
    Column("text", Text, nullable=False),
    Column("state", String(16), nullable=False),  # writing, whole, stopped, cut, failed
    Column("fault", Text),  # the sentence that says what went wrong
    Column("writer", String(255)),  # the process that writes it, while it is written
    Column("details", JSON, nullable=False),  # receipt, finish, usage, director's reason
    Column("created", Float, nullable=False),
    UniqueConstraint("conversation_id", "number", name="uq_messages_number"),
    Index("ix_messages_parent", "parent_id"),
    Index("ix_messages_state", "state"),
)

# What entered a reply's prompt. Apart from its message, as it is large and seldom read.
receipts = Table(
    "receipts",
    metadata,
    Column(
        "message_id", String(32), ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("receipt", JSON, nullable=False),
)

# What a character remembers of a user. A fact that was replaced stays, and says by what.
memories = Table(
    "memories",
    metadata,
    _id_column(),
    _owner_column(),
    Column("character", String(255), nullable=False),
    # turn, fact; gone: this message was forgotten, and is not to be remembered again
    Column("kind", String(16), nullable=False),
    Column("number", Integer, nullable=False),  # its message's place among all that were heard
    Column("role", String(16), nullable=False),
    Column("speaker", String(255), nullable=False),
    Column("text", Text, nullable=False),
    Column("slot", String(255)),  # what a fact is about; facts of one slot replace each other
    Column("conversation_id", String(32)),
    Column("message_id", String(32)),  # where it was said
    Column("importance", Float, nullable=False),
    Column("replaced_by", String(32)),
    Column("corrected", Boolean, nullable=False),  # by the user's own hand
    Column("created", Float, nullable=False),
    Index("ix_memories_scope", "user_id", "character", "created"),
    Index("ix_memories_number", "user_id", "character", "kind", "number"),
    Index("ix_memories_slot", "user_id", "character", "slot"),
    Index("ix_memories_message", "message_id"),
)

# A shelf is whose documents they are: a character's own folder, or a user's uploads for a character.
documents = Table(
    "documents",
    metadata,
    _id_column(),
    Column("shelf", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),  # of the file
    Column("text", Text, nullable=False),  # as it was read; spans count its characters
    Column("details", JSON, nullable=False),
    Column("created", Float, nullable=False),
    UniqueConstraint("shelf", "name", name="uq_documents_name"),
)

spans = Table(
    "spans",
    metadata,
    _id_column(),
    Column(
        "document_id", String(32), ForeignKey("documents.id", ondelete="CASCADE"), nullable=False
    ),
    Column("number", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("heading", Text, nullable=False),
    Column("page", Integer),
    Column(
        "sha256", String(64), nullable=False
    ),  # of its text: what did not change is not embedded
    Index("ix_spans_document", "document_id", "number"),
)
