"""The database: one engine whose tables are those of this version, migrated where needed."""

from __future__ import annotations

from elysia.store.database import DEFAULT_DATABASE, Database, get_database_folder, open_database

__all__ = ["DEFAULT_DATABASE", "Database", "get_database_folder", "open_database"]
