"""The database schema: users, their conversations and characters, memories, documents.

Ids are random hex (uuid4), so that none can be guessed; times are seconds since 1970 (UTC). A row that
belongs to a user names the user, and every query of `chat`, `memory` and `knowledge` filters by it.
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
    # scrypt's parameters, salt and hash; null for users of OpenID and for the local user
    Column("password", String(255)),
    Column("settings", JSON, nullable=False),
    Column("created", Float, nullable=False),
)

# Character cards that a user uploaded. The bundled ones are files and have no row.
characters = Table(
    "characters",
    metadata,
    _id_column(),
    _owner_column(),
    Column("name", String(255), nullable=False),
    Column("file", String(255), nullable=False),  # its name when it was uploaded
    Column("card", LargeBinary, nullable=False),  # its bytes, unchanged
    Column("created", Float, nullable=False),
    Index("ix_characters_user", "user_id", "created"),
)

conversations = Table(
    "conversations",
    metadata,
    _id_column(),
    _owner_column(),
    Column("title", String(255), nullable=False),
    Column("guests", JSON, nullable=False),  # keys of its characters; several in a group chat
    Column("settings", JSON, nullable=False),
    Column("head", String(32)),  # the last message of the branch that is shown
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Index("ix_conversations_user", "user_id", "updated"),
)

# A tree: siblings are alternatives (swipes, edits) to each other.
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
    Column("number", Integer, nullable=False),  # order of creation within the conversation
    Column("role", String(16), nullable=False),
    Column("speaker", String(255)),  # a character's key; null for the user
    Column("text", Text, nullable=False),
    Column("state", String(16), nullable=False),  # writing, whole, stopped, cut, failed
    Column("fault", Text),  # what went wrong, for people
    Column("writer", String(255)),  # while it is being written: the process that writes it
    Column(
        "details", JSON, nullable=False
    ),  # finish reason, usage, why this speaker was selected …
    Column("created", Float, nullable=False),
    UniqueConstraint("conversation_id", "number", name="uq_messages_number"),
    Index("ix_messages_parent", "parent_id"),
    Index("ix_messages_state", "state"),
)

# What entered a reply's prompt. A table of its own because it is large and seldom read.
receipts = Table(
    "receipts",
    metadata,
    Column(
        "message_id", String(32), ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("receipt", JSON, nullable=False),
)

# What a character remembers of a user. A replaced fact stays and names its replacement.
memories = Table(
    "memories",
    metadata,
    _id_column(),
    _owner_column(),
    Column("character", String(255), nullable=False),
    # turn or fact; gone: the message was forgotten and must not be remembered again
    Column("kind", String(16), nullable=False),
    Column(
        "number", Integer, nullable=False
    ),  # position of its message among all messages of the scope
    Column("role", String(16), nullable=False),
    Column("speaker", String(255), nullable=False),
    Column("text", Text, nullable=False),
    Column("slot", String(255)),  # what a fact is about; a newer fact of the slot replaces it
    Column("conversation_id", String(32)),
    Column("message_id", String(32)),  # the message it comes from
    Column("importance", Float, nullable=False),
    Column("replaced_by", String(32)),
    Column("corrected", Boolean, nullable=False),  # edited by the user
    Column("created", Float, nullable=False),
    Index("ix_memories_scope", "user_id", "character", "created"),
    Index("ix_memories_number", "user_id", "character", "kind", "number"),
    Index("ix_memories_slot", "user_id", "character", "slot"),
    Index("ix_memories_message", "message_id"),
)

# A shelf holds a character's bundled documents, or a user's uploads for a character.
documents = Table(
    "documents",
    metadata,
    _id_column(),
    Column("shelf", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),  # of the file
    Column("text", Text, nullable=False),  # as extracted; spans are offsets into it
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
    # of its text and heading: a span that did not change is not embedded again
    Column("sha256", String(64), nullable=False),
    Index("ix_spans_document", "document_id", "number"),
)
