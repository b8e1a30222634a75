"""The database: made, migrated, shared, and refused with a sentence."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, inspect, select, text

from elysia.core.errors import StoreError
from elysia.store import database as module
from elysia.store.database import open_database
from elysia.store.tables import metadata, new_id, users


def user(name: str = "a") -> dict[str, object]:
    return {"id": new_id(), "name": name, "settings": {}, "created": 0.0}


def test_a_new_file_has_the_tables_of_this_version(tmp_path):
    database = open_database(str(tmp_path / "deep" / "chat.db"))
    with database.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) >= set(metadata.tables)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.close()


def test_rows_outlive_the_process_and_a_second_opening_changes_nothing(tmp_path):
    first = open_database(str(tmp_path / "chat.db"))
    with first.write() as connection:
        connection.execute(insert(users).values(user()))
    first.close()
    second = open_database(f"sqlite:///{tmp_path / 'chat.db'}")
    with second.read() as connection:
        assert connection.execute(select(users.c.name)).scalars().all() == ["a"]


def test_a_block_that_fails_leaves_nothing(tmp_path):
    database = open_database(str(tmp_path / "chat.db"))
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute(insert(users).values(user()))
        raise ZeroDivisionError
    with database.read() as connection:
        assert connection.execute(select(users)).all() == []


def test_a_newer_database_is_refused_and_left_as_it_is(tmp_path):
    database = open_database(str(tmp_path / "chat.db"))
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StoreError, match=r"newer version of Elysia .*9999"):
        open_database(str(tmp_path / "chat.db"))


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    (tmp_path / "chat.db").write_bytes(b"this is a diary, no database" * 100)
    with pytest.raises(StoreError, match="no database, or it is damaged"):
        open_database(str(tmp_path / "chat.db"))
    assert (tmp_path / "chat.db").read_bytes().startswith(b"this is a diary")


def test_a_database_that_another_program_locks_is_said_to_be_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_TIMEOUT", 0.2)
    database = open_database(str(tmp_path / "chat.db"))
    other = sqlite3.connect(tmp_path / "chat.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another program"), database.write():
        pass
    other.execute("ROLLBACK")
    with database.write() as connection:
        connection.execute(insert(users).values(user()))


def test_many_threads_read_then_write_without_being_locked_out(tmp_path):
    database = open_database(str(tmp_path / "chat.db"))
    with database.write() as connection:
        connection.execute(insert(users).values({**user(), "settings": {"n": 0}}))
    faults: list[Exception] = []

    def count() -> None:
        try:
            for _ in range(10):
                with database.write() as connection:
                    now = connection.execute(select(users.c.settings)).scalar_one()["n"]
                    connection.execute(users.update().values(settings={"n": now + 1}))
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    with database.read() as connection:
        assert connection.execute(select(users.c.settings)).scalar_one() == {"n": 60}


@pytest.mark.parametrize("url", ["nonsense://", "oracle+nothing://x", "postgres1://a"])
def test_a_url_that_cannot_be_opened_is_told_in_a_sentence(url):
    with pytest.raises(StoreError):
        open_database(url)


def test_a_password_in_a_url_is_never_shown(tmp_path):
    with pytest.raises(StoreError) as caught:
        open_database("postgresql+psycopg://me:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)
