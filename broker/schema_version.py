"""The database's revision: migrated by Alembic, checked before a start."""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from storage.database import Database


class SchemaNotCurrent(Exception):
    """The tables are not those of this release."""


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["url"] = url
    return config


def migrate_to(url: str, revision: str = "head") -> str:
    """Bring the tables to a revision, up or down, and say which they have now."""
    from alembic import command

    config = _config(url)
    before = current(url)
    script = ScriptDirectory.from_config(config)
    wanted = script.get_current_head() if revision == "head" else revision
    if wanted == "base" or (before and wanted in {r.revision for r in script.walk_revisions("base", before)}):
        command.downgrade(config, wanted or "base")
    else:
        command.upgrade(config, revision)
    return f"revision {current(url) or 'base'}"


def current(url: str) -> str | None:
    """Return the revision of the tables, None before the first.

    Raises:
        DatabaseUnavailable: it did not answer.
    """
    database = Database(url)
    try:
        with database.read() as session:
            return MigrationContext.configure(session.connection()).get_current_revision()
    finally:
        database.close()


def check_current(url: str) -> None:
    """Refuse to run on tables of another release.

    Raises:
        SchemaNotCurrent: says what to type.
    """
    head = ScriptDirectory.from_config(_config(url)).get_current_head()
    if current(url) != head:
        raise SchemaNotCurrent("the database's tables are not those of this release: run `idf-compute-broker migrate`")
