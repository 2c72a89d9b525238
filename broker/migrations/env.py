"""Alembic's environment: the database's address comes from whoever calls, never from a file."""

from typing import Any

from alembic import context
from sqlalchemy import Connection

import accounting.models  # noqa: F401 - the tables of every folder
import broker.models  # noqa: F401
import quotas.models  # noqa: F401
from storage.database import Database
from storage.tables import metadata


def keep_references(connection: Connection, *, kept: bool) -> None:
    """Turn SQLite's foreign keys on or off: it changes a table by building it anew, which they would refuse.

    Outside any transaction, where alone the pragma acts (sqlite.org/lang_altertable.html, section 7).
    """
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.execute(f"PRAGMA foreign_keys={'ON' if kept else 'OFF'}")


def check_references(connection: Connection) -> None:
    """Refuse to commit where a row refers to one that is not there; PostgreSQL has looked already."""
    if connection.dialect.name == "sqlite":
        lost = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if lost is not None:
            raise RuntimeError(f"after the migration a row of {lost[0]} refers to a row of {lost[2]} that is not there")


database = Database(context.config.attributes["url"])
with database.engine.connect() as connection:
    keep_references(connection, kept=False)
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    check_references(connection)
    connection.commit()
    keep_references(connection, kept=True)
database.close()
