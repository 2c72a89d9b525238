"""One door to the database, SQLite (WAL) or PostgreSQL: a read, or a write that commits once at the edge."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

WAIT_S = 10
"""How long a request waits for the database before it is refused (docs/rules.md)."""


class DatabaseUnavailable(Exception):
    """The database did not answer in time; nothing was written."""

    code = "database-unavailable"


class Database:
    """An engine and the two ways to use it. Nothing is opened before the first use."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.engine = _engine(url, pool_size)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        # On SQLite every transaction sees one state; PostgreSQL is asked for it.
        self._still = (
            self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        )
        self._writing = self.engine.execution_options(idf_write=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session that sees one state of the database and writes nothing."""
        with _translated(), Session(self.engine, autoflush=False) as session:
            yield session

    @contextmanager
    def rows(self) -> Iterator[Connection]:
        """Open a bare connection that sees one state of the database: for paths where objects cost too much."""
        with _translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Open a bare connection whose statements all see one state, however long they take and whoever writes."""
        with _translated(), self._still.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write_rows(self) -> Iterator[Connection]:
        """Open a bare connection whose changes are committed when the block ends, or undone when it raises.

        Raises:
            DatabaseUnavailable: the lock or the server was not to be had within `WAIT_S`.
        """
        with _translated(), self._writing.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session whose changes are committed when the block ends, or undone when it raises.

        Raises:
            DatabaseUnavailable: the lock or the server was not to be had within `WAIT_S`.
        """
        with _translated(), Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise DatabaseUnavailable(f"the database did not answer within {WAIT_S} s") from error


def _engine(url: str, pool_size: int) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_engine(
            url,
            connect_args={"timeout": WAIT_S, "check_same_thread": False},
            pool_size=pool_size,
            max_overflow=20,
            pool_timeout=WAIT_S,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=20,
        pool_timeout=WAIT_S,
        pool_pre_ping=True,
        connect_args={"connect_timeout": WAIT_S, "options": f"-c lock_timeout={WAIT_S}s -c timezone=UTC"},
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us, see _begin_sqlite
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a read that turns into a write could only fail, not wait."""
    writes = connection.get_execution_options().get("idf_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
