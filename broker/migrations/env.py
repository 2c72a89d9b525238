"""Alembic's environment: the database's address comes from whoever calls, never from a file."""

from alembic import context

import accounting.models  # noqa: F401 - the tables of every folder
import broker.models  # noqa: F401
import quotas.models  # noqa: F401
from storage.database import Database
from storage.tables import metadata

database = Database(context.config.attributes["url"])
with database.engine.connect() as connection:
    if database.is_sqlite:
        # SQLite changes a table by making it anew: rows that refer to it must not stand in the way meanwhile.
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
        if database.is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
            raise RuntimeError(f"the migration left a row that refers to nothing: {tuple(broken)}")
    connection.commit()
database.close()
