"""One door to the database, SQLite (WAL) or PostgreSQL: a read, or a write that commits once at the edge."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Engine,
    Row,
    Select,
    Table,
    Text,
    TextClause,
    any_,
    bindparam,
    create_engine,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
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
        connect_args={"connect_timeout": WAIT_S, "options": _POSTGRES_OPTIONS},
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us, see _begin_sqlite
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a read that turns into a write could only fail, not wait."""
    writes = connection.get_execution_options().get("idf_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def rows_of(
    connection: Connection, columns: tuple[Column[Any], ...], keys: Sequence[str], *, lock: bool = False
) -> Iterator[Row[Any]]:
    """Yield columns of the rows whose first one is among some texts; `lock` locks them, in the order of that column."""
    statement = _selection(connection.dialect.name, columns, lock)
    for start in range(0, len(keys), _KEYS_MAX):
        yield from connection.execute(statement, {"keys": list(keys[start : start + _KEYS_MAX])})


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all name the same columns; by COPY on PostgreSQL, whatever their number.

    A column that no row names gets the table's own default, never one of Python's.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(insert(table), rows)
        return
    names = tuple(rows[0])
    statement, bind = _copy_statement(connection.dialect, table, names)
    cursor: Any = connection.connection.cursor()
    try:
        with cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row([to(row[name]) for name, to in zip(names, bind, strict=True)])
    except psycopg.Error as error:
        raise DBAPIError.instance(statement, None, error, psycopg.Error, dialect=connection.dialect) from error


def update_column(connection: Connection, column: Column[int], values: Mapping[str, int]) -> None:
    """Set an integer column of the rows with these ids; in one statement on PostgreSQL, whatever their number."""
    if not values:
        return
    if connection.dialect.name == "sqlite":
        table = column.table
        one = update(table).where(table.c.id == bindparam("key")).values({column.name: bindparam("value")})
        connection.execute(one, [{"key": key, "value": value} for key, value in values.items()])
        return
    connection.execute(_update_statement(column), {"keys": list(values), "values": list(values.values())})


_POSTGRES_OPTIONS = (
    f"-c lock_timeout={WAIT_S}s -c timezone=UTC -c plan_cache_mode=force_custom_plan -c random_page_cost=1.1"
)
"""Plans are made anew: one kept from when a table was small reads it whole, and the ledger only grows. A page read out
of order costs what solid disks and a warm cache ask, else the rows of a group are looked for in the whole table."""

_KEYS_MAX = 500
"""Of one statement: SQLite takes each as a parameter of its own."""

_Bound = Callable[[Any], Any]


@lru_cache(maxsize=64)
def _selection(dialect: str, columns: tuple[Column[Any], ...], lock: bool) -> Select[Any]:
    key = columns[0]
    if dialect == "sqlite":
        wanted = select(*columns).where(key.in_(bindparam("keys", expanding=True)))
    else:
        wanted = select(*columns).where(key == any_(bindparam("keys", type_=ARRAY(Text))))
    return wanted.order_by(key).with_for_update() if lock else wanted


@lru_cache(maxsize=256)
def _copy_statement(dialect: Dialect, table: Table, names: tuple[str, ...]) -> tuple[str, tuple[_Bound, ...]]:
    """Return the COPY of rows that name these columns, and what binds each column's values."""
    columns = ", ".join(f'"{name}"' for name in names)
    processors = (table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names)
    return f'COPY "{table.name}" ({columns}) FROM STDIN', tuple(processor or _same for processor in processors)


@lru_cache(maxsize=64)
def _update_statement(column: Column[int]) -> TextClause:
    name = column.table.name
    return text(
        f'UPDATE "{name}" SET "{column.name}" = new.value '  # noqa: S608
        "FROM unnest(CAST(:keys AS text[]), CAST(:values AS bigint[])) AS new(key, value) "
        f'WHERE "{name}".id = new.key'
    )


def _same(value: Any) -> Any:
    return value
