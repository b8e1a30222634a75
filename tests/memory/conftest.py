"""A store in a folder, with two users and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from elysia.memory.base import MemoryInput, MemoryScope
from elysia.memory.long_term import LongTermMemory, open_memory
from elysia.store.database import Database, open_database
from elysia.store.tables import users

NOW = 1_715_600_000.0  # 2024-05-13


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An empty database."""
    return str(tmp_path / "chat.db")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    with opened.write() as connection:
        for name in ("ann", "bob"):
            row = {"id": name, "name": name, "settings": {}, "created": 0.0}
            connection.execute(insert(users).values(**row))
    yield opened
    opened.close()


@pytest.fixture
def open_store(database: Database, tmp_path: Path) -> Iterator[Callable[..., LongTermMemory]]:
    """Open the store, as often as wanted: with the same rows and the same folder."""
    opened: list[Any] = []

    def open_it(**options: Any) -> Any:
        opened.append(open_memory(database, tmp_path / "index", clock=lambda: NOW, **options))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., LongTermMemory]) -> LongTermMemory:
    return open_store()


@pytest.fixture
def scope() -> MemoryScope:
    return MemoryScope("ann", "elysia")


@pytest.fixture
def say() -> Callable[..., MemoryInput]:
    """The next message of a talk, a minute after the last."""
    count = iter(range(10_000))

    def next_message(
        text: str, role: str = "user", conversation: str = "talk", **changes: Any
    ) -> MemoryInput:
        n = next(count)
        values: dict[str, Any] = {
            "message_id": f"m{n}", "conversation_id": conversation, "role": role, "speaker": role, "text": text,
            "at": NOW - 1_000_000 + 60 * n,
        }  # fmt: skip
        return MemoryInput(**(values | changes))

    return next_message
