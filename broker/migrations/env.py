"""Alembic's environment: the database's address comes from whoever calls, never from a file."""

from alembic import context

import accounting.models  # noqa: F401 - the tables of every folder
import broker.models  # noqa: F401
import quotas.models  # noqa: F401
from storage.database import Database
from storage.tables import metadata

database = Database(context.config.attributes["url"])
with database.engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
database.close()
