"""The database as PostgreSQL: made from nothing, shared, refused when newer, and back after a fall."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, inspect, select, text, update

from elysia.core.errors import StoreError
from elysia.store import database as module
from elysia.store.database import open_database
from elysia.store.tables import metadata, users
from tests.store.test_database import user

ROOT = Path(__file__).parents[2]
OTHERS_END = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid != pg_backend_pid()"""


@pytest.mark.parametrize("postgres", ["empty"], indirect=True)
def test_from_nothing_it_gets_the_tables_of_this_version(postgres):
    database = open_database(postgres)
    with database.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) >= set(metadata.tables)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.close()


OPENER = """
import sys
from sqlalchemy import insert
from elysia.store import database as module
from elysia.store.database import open_database
from elysia.store.tables import users
input()
database = open_database(sys.argv[1])
with database.write() as connection:
    connection.execute(insert(users).values(id=sys.argv[2], name=sys.argv[2], settings={}, created=0.0))
"""


@pytest.mark.parametrize("postgres", ["empty"], indirect=True)
def test_several_that_open_it_first_at_once_all_find_it_whole(postgres):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, postgres, name], stdin=subprocess.PIPE, cwd=ROOT
        )
        for name in ("a", "b")
    ]
    for child in children:
        child.stdin.write(b"\n")
        child.stdin.close()
    threads = [threading.Thread(target=lambda: open_database(postgres).close()) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait(60) for child in children] == [0, 0]
    database = open_database(postgres)
    with database.read() as connection:
        assert sorted(connection.execute(select(users.c.name)).scalars()) == ["a", "b"]
    database.close()


def test_a_newer_one_is_refused_and_left_as_it_is(postgres):
    database = open_database(postgres)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StoreError, match=r"newer version of Elysia .*9999"):
        open_database(postgres)


def test_a_block_that_fails_leaves_nothing_and_a_server_that_fell_is_found_again(postgres):
    database, second = open_database(postgres), open_database(postgres)
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute(insert(users).values(user("a")))
        raise ZeroDivisionError
    with pytest.raises(StoreError, match="postgresql"), database.write() as connection:
        connection.execute(insert(users).values(user("b")))
        with second.read() as ending:
            ending.execute(text(OTHERS_END))
        connection.execute(insert(users).values(user("c")))
    second.close()
    with database.read() as connection:
        assert connection.execute(select(users)).all() == []
    database.close()


def test_writers_that_read_first_take_turns(postgres):
    database = open_database(postgres)
    with database.write() as connection:
        connection.execute(insert(users).values(user("a")))

    def add():
        for _ in range(10):
            with database.write() as connection:
                settings = connection.execute(select(users.c.settings)).scalar_one()
                connection.execute(update(users).values(settings={"n": settings.get("n", 0) + 1}))

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute(select(users.c.settings)).scalar_one() == {"n": 30}
    database.close()


def test_a_writer_that_holds_on_is_waited_for_and_then_told_of(postgres, monkeypatch):
    monkeypatch.setattr(module, "LOCK_TIMEOUT", 1.0)
    database = open_database(postgres)
    with database.write():
        with database.read() as connection:  # readers wait for nobody
            assert connection.execute(select(users)).all() == []
        with pytest.raises(StoreError, match="locked by another program"), database.write():
            pass
    with database.write() as connection:
        connection.execute(insert(users).values(user("a")))
    database.close()


def test_a_server_that_is_not_there_is_a_sentence_without_the_password():
    with pytest.raises(StoreError, match="failed") as caught:
        open_database("postgresql+psycopg://me:hunter2@127.0.0.1:9/chat")
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
