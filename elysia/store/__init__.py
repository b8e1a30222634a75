"""The database: one engine whose tables are those of this version, migrated where needed."""

from __future__ import annotations

from elysia.store.database import Database, get_database_folder, open_database

__all__ = ["Database", "get_database_folder", "open_database"]
