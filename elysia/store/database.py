"""One door to the database: a URL becomes an engine whose tables are those of this version.

SQLite by default, with a write-ahead log so that readers never wait for a writer; any URL of
SQLAlchemy otherwise. Writers take turns, in SQLite and in PostgreSQL: what a writer has read is so
until it ends. A database of an older version is migrated, one of a newer version is refused.
Knows nothing of what the rows mean.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from elysia.core.errors import StoreError

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
DEFAULT_DATABASE = "work_dirs/chat/elysia.db"
LOCK_TIMEOUT = 10.0  # seconds to wait for another process that writes
POOL_SIZE = 8  # that stay open; as many more are opened for a moment when threads ask at once
PAGE_CACHE_KIB = (
    1024  # KiB of pages that each of SQLite's connections may keep; the system keeps the file's
)
WRITER_LOCK_ID = (
    0x656C79736961  # PostgreSQL's name of the lock that writers of a database take in turn
)

_migration_lock = threading.Lock()  # Alembic keeps what it migrates in globals


class Database:
    """An open database. May be used from several threads; `close` when done."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writing = engine.execution_options(writes=True)
        # SQLite bears one writer. Who waits for it inside SQLite sleeps up to 100 ms at a time and
        # is overtaken; threads of one process wait here, and are woken at once.
        sqlite = engine.url.get_backend_name() == "sqlite"
        self._alone: AbstractContextManager[object] = threading.RLock() if sqlite else nullcontext()

    @property
    def masked_url(self) -> str:
        """The URL without its password."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that changes nothing. StoreError with a sentence when the database fails."""
        with self._explained(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: kept whole when the block ends well, else not at all."""
        with self._explained(), self._alone, self._writing.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # what was asked for is there already: the caller knows what that means
        except DBAPIError as error:
            raise StoreError(explain_error(error, self.masked_url)) from error


def open_database(url: str) -> Database:
    """The database at `url`, made or migrated where needed. A path is a SQLite file.

    StoreError, a sentence, when it cannot be opened, is locked, damaged or of a newer version.
    """
    if "://" not in url:
        url = f"sqlite:///{Path(url).absolute()}"
    try:
        parsed = make_url(url)
        if _is_file(parsed):
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, **_engine_options(parsed))
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            "The database's URL cannot be read; write it like sqlite:////path/chat.db "
            "or postgresql+psycopg://user:password@host/name."
        ) from error
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(
            f"No driver for {parsed.drivername} is installed here ({error}). "
            "For PostgreSQL: pip install 'psycopg[binary]', and a URL postgresql+psycopg://..."
        ) from error
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}; name another place.") from error
    if engine.url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.url.get_backend_name() == "postgresql":
        event.listen(engine, "begin", _lock_writers)
    database = Database(engine)
    try:
        with _migration_lock:
            _migrate(database)
    except DBAPIError as error:
        engine.dispose()
        raise StoreError(explain_error(error, database.masked_url)) from error
    except StoreError:
        engine.dispose()
        raise
    return database


def get_data_folder(url: str) -> Path:
    """Where what is derived from a database lies: a SQLite file's folder, else that of DEFAULT."""
    if "://" not in url:
        return Path(url).parent
    parsed = make_url(url)
    if _is_file(parsed):
        return Path(str(parsed.database)).parent
    return Path(DEFAULT_DATABASE).parent


def explain_error(error: DBAPIError, shown: str) -> str:
    """What a driver's fault means, and what to do."""
    said = str(error.orig)
    if "locked" in said or "busy" in said or "lock timeout" in said:
        return (
            f"The database {shown} has been locked by another program for {LOCK_TIMEOUT:.0f} seconds. "
            "Close that program, or try again."
        )
    if "not a database" in said or "malformed" in said:
        return (
            f"{shown} is no database, or it is damaged. Move it aside (nothing is deleted) and a "
            "new one is made; `sqlite3 FILE .recover` may save what is in it."
        )
    if "full" in said:
        return f"The disk of {shown} is full. Nothing half-written was kept; make room."
    if "readonly" in said or "unable to open" in said:
        return f"{shown} cannot be written here: {said}. Name another place."
    return f"The database {shown} failed: {said.splitlines()[0] if said else error}."


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")


def _engine_options(url: URL) -> dict[str, Any]:
    # The connection that was used last is taken first: few are warm, and hold memory.
    pool = {"pool_size": POOL_SIZE, "max_overflow": POOL_SIZE, "pool_use_lifo": True}
    if url.get_backend_name() != "sqlite":
        return {**pool, "pool_pre_ping": True}
    mine = {"connect_args": {"timeout": LOCK_TIMEOUT, "check_same_thread": False}}
    return {**pool, **mine} if _is_file(url) else mine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions, see _begin
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA journal_mode=WAL")
    # A commit must outlive the process; a power cut may cost the last ones, not the file.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA cache_size=-{PAGE_CACHE_KIB}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # The default begins when the first row is written, and then two readers that both want to write
    # are told "locked" at once, without any patience.
    if _is_writer(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif (driver := connection.connection.driver_connection) is not None:
        driver.execute("BEGIN").close()  # locks nothing yet, so cannot fail; the short way


def _lock_writers(connection: Connection) -> None:
    # Two that read, decide and write at once would both write what one of them should. SQLite lets
    # one in at a time, and what is written here counts on that.
    if _is_writer(connection):
        connection.exec_driver_sql(
            f"SELECT set_config('lock_timeout', '{LOCK_TIMEOUT:.0f}s', true), "
            f"pg_advisory_xact_lock({WRITER_LOCK_ID})"
        )


def _is_writer(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("writes", False))


def _migrate(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        now, newest = context.get_current_revision(), script.get_current_head()
    if now == newest:
        return
    if now is not None and now not in {one.revision for one in script.walk_revisions()}:
        raise StoreError(
            f"The database {database.masked_url} was written by a newer version of Elysia (its tables "
            f"are of {now}, this version knows {newest}). Update Elysia, or name another database."
        )
    log.info("Bringing the database from %s to %s", now or "nothing", newest)
    with database.engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
