"""A database file as the version before the packages were renamed wrote it: opened, read and used.

`previous_version.sql` is that file as SQLite dumps it: a user with a password and the local user, an
uploaded card, a conversation with branches, a group, a reply whose process died, memories (a replaced,
a corrected and a forgotten one), documents of a character and of a user.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select

from elysia.knowledge import open_document_store
from elysia.memory import MemoryInput, MemoryScope, open_memory
from elysia.store import open_database
from elysia.store.tables import metadata, users

DUMP = Path(__file__).with_name("previous_version.sql")
NOW = 1_796_092_500.0  # two minutes after it was written


@pytest.fixture
def database(tmp_path):
    file = sqlite3.connect(tmp_path / "elysia.db")
    file.executescript(DUMP.read_text(encoding="utf-8"))
    file.close()
    opened = open_database(str(tmp_path / "elysia.db"))
    yield opened
    opened.close()


@pytest.fixture
def ann(database):
    with database.read() as connection:
        return connection.scalar(select(users.c.id).where(users.c.name == "Ann"))


def test_its_tables_are_those_of_this_version(database):
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_its_memories_are_found_corrected_and_forgotten(database, ann, tmp_path):
    scope = MemoryScope(ann, "elysia")
    memory = open_memory(database, tmp_path / "memory", clock=lambda: NOW)
    facts = {fact.slot: fact for fact in memory.list_memories(scope, kind="fact") if fact.current}
    assert {slot: fact.text for slot, fact in facts.items()} == {
        "name": "我叫林小晓",
        "home": "我搬到上海了",
        "pet:年糕": "我养了一只橘猫，叫年糕",
    }
    assert facts["name"].corrected
    # With scores and reasons as that version gave them.
    hits = [
        memory.recall(scope, question, k=1)[0] for question in ("我的猫叫什么？", "北京还是上海")
    ]
    assert [(hit.memory.text, hit.score, str(hit.explanation)) for hit in hits] == [
        ("我养了一只橘猫，叫年糕。", 0.8241, "words 0.11, subject's words 0.15"),
        ("我搬到上海了。", 0.5582, "words 0.17"),
    ]
    # A forgotten message stays forgotten.
    with database.read() as connection:
        forgotten = connection.exec_driver_sql(
            "SELECT message_id FROM memories WHERE kind = 'gone'"
        )
        message = MemoryInput(forgotten.scalar(), "c", "assistant", "x", "xylophone", 0.0)
    assert memory.remember(scope, [message]) == []
    memory.forget(scope, facts["home"].id)
    assert {fact.slot for fact in memory.list_memories(scope, kind="fact")} == {"name", "pet:年糕"}
    memory.close()


def test_its_documents_are_found_cited_and_not_read_again(database, ann, tmp_path):
    knowledge = open_document_store(database, tmp_path / "knowledge")
    [hit] = knowledge.search(["character/elysia"], "玫瑰是什么时候种下的？", k=1)
    assert (hit.name, hit.heading) == ("花房.md", "花房 > 玫瑰")
    assert knowledge.text("character/elysia", hit.document_id)[hit.start : hit.end] == hit.text
    [tea] = knowledge.documents(f"user/{ann}/elysia")
    content = b"# Tea\n\nEvery Friday at four there is tea and peach pudding.\n"
    assert hashlib.sha256(content).hexdigest() in DUMP.read_text(encoding="utf-8")
    assert knowledge.add(f"user/{ann}/elysia", "tea.md", content) == tea
    knowledge.close()
