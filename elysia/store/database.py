"""Opens the database: a URL becomes an engine whose tables are those of this version.

SQLite by default, with a write-ahead log so that readers never wait for a writer; any URL of
SQLAlchemy otherwise. Writers take turns, in SQLite and in PostgreSQL: what a writer has read stays
true until its transaction ends. A database of an older version is migrated, one of a newer version is
refused.
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
from elysia.core.paths import CHAT_DATABASE

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_TIMEOUT = 10.0  # seconds to wait for another process that writes
POOL_SIZE = 8  # connections kept open; as many more are opened briefly when threads ask at once
PAGE_CACHE_KIB = 1024  # of each SQLite connection; the system caches the file anyway
WRITER_LOCK_ID = 0x656C79736961  # PostgreSQL's advisory lock that the writers of a database share

_migration_lock = threading.Lock()  # Alembic keeps its state in globals


class Database:
    """An open database. May be used from several threads; `close` when done."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writing_engine = engine.execution_options(writes=True)
        # SQLite allows one writer. A connection that waits for it inside SQLite sleeps up to 100 ms at
        # a time and is overtaken; threads of one process wait here, and are woken at once.
        is_sqlite = engine.url.get_backend_name() == "sqlite"
        self._write_lock: AbstractContextManager[object] = (
            threading.RLock() if is_sqlite else nullcontext()
        )

    @property
    def masked_url(self) -> str:
        """The URL without its password."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading. StoreError when the database fails."""
        with self._translate_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: committed when the block ends well, else rolled back."""
        with self._translate_errors(), self._write_lock, self._writing_engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # the row exists already: the caller knows what that means
        except DBAPIError as error:
            raise explain_error(error, self.masked_url) from error


def open_database(url: str) -> Database:
    """The database at `url`, created or migrated where needed. A path is a SQLite file.

    StoreError when it cannot be opened, is locked, damaged or of a newer version.
    """
    if "://" not in url:
        url = f"sqlite:///{Path(url).absolute()}"
    database = Database(_create_engine(url))
    try:
        with _migration_lock:
            _migrate(database)
    except DBAPIError as error:
        database.close()
        raise explain_error(error, database.masked_url) from error
    except StoreError:
        database.close()
        raise
    return database


def get_database_folder(url: str) -> Path:
    """Where derived files belong: a SQLite file's folder, else that of the default database."""
    if "://" not in url:
        return Path(url).parent
    parsed = make_url(url)
    if _is_file(parsed):
        return Path(str(parsed.database)).parent
    return Path(CHAT_DATABASE).parent


def explain_error(error: DBAPIError, url: str) -> StoreError:
    """What a driver's error means, and what to do."""
    fault = str(error.orig)
    if "locked" in fault or "busy" in fault or "lock timeout" in fault:
        return StoreError("store.locked", url=url, seconds=round(LOCK_TIMEOUT))
    if "not a database" in fault or "malformed" in fault:
        return StoreError("store.damaged", url=url)
    if "full" in fault:
        return StoreError("store.disk_full", url=url)
    if "readonly" in fault or "unable to open" in fault:
        return StoreError("store.not_writable", url=url, fault=fault)
    return StoreError("store.failed", url=url, fault=fault.splitlines()[0] if fault else error)


def _create_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if _is_file(parsed):
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, **_engine_options(parsed))
    except (ArgumentError, ValueError) as error:
        raise StoreError("store.bad_url") from error
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        driver = parsed.drivername
        raise StoreError("store.driver_missing", driver=driver, fault=error) from error
    except OSError as error:
        raise StoreError(
            "store.folder_failed", path=error.filename, fault=error.strerror
        ) from error
    if engine.url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.url.get_backend_name() == "postgresql":
        event.listen(engine, "begin", _lock_writers)
    return engine


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")


def _engine_options(url: URL) -> dict[str, Any]:
    # Last in, first out: few connections stay warm, and only those hold memory.
    pool = {"pool_size": POOL_SIZE, "max_overflow": POOL_SIZE, "pool_use_lifo": True}
    if url.get_backend_name() != "sqlite":
        return {**pool, "pool_pre_ping": True}
    sqlite = {"connect_args": {"timeout": LOCK_TIMEOUT, "check_same_thread": False}}
    return {**pool, **sqlite} if _is_file(url) else sqlite


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions, see _begin_sqlite
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA journal_mode=WAL")
    # A commit must survive the process; a power cut may cost the last ones, not the file.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA cache_size=-{PAGE_CACHE_KIB}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # By default a transaction takes the write lock at its first write, and then two readers that both
    # want to write fail with "locked" at once, without waiting.
    if _is_writer(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif (driver := connection.connection.driver_connection) is not None:
        driver.execute("BEGIN").close()  # locks nothing yet, so it cannot fail; the fast path


def _lock_writers(connection: Connection) -> None:
    # Two transactions that read, decide and write at once could both write what only one should.
    # SQLite admits one writer at a time, and the code above the database relies on that.
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
        current, newest = context.get_current_revision(), script.get_current_head()
    if current == newest:
        return
    if current is not None and current not in {item.revision for item in script.walk_revisions()}:
        raise StoreError("store.newer", url=database.masked_url, revision=current, known=newest)
    log.info("Migrating the database from revision %s to %s", current or "none", newest)
    with database.engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
