"""Alembic's entry point: migrates over the connection that `elysia.store.database` passes in."""

from __future__ import annotations

from alembic import context

from elysia.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by copying it into a new one
)
with context.begin_transaction():
    context.run_migrations()
