"""A database filled once and copied for each test that wants a region: what `world` enters takes 0.3 s."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL, make_url

from broker.schema_version import check_current

Tokens = dict[str, str]
_made: dict[str, tuple[str, Tokens]] = {}
"""By server, or `sqlite`: the filled database's file or name, and the tokens of its people."""
_folder = tempfile.TemporaryDirectory(prefix="idf-filled-")


def fill(database_url: str, enter: Callable[[str], Tokens]) -> Tokens | None:
    """Replace a database that is migrated and empty by a filled one; None where it is not empty.

    `enter` fills the database at an address and lets go of it.
    """
    url = make_url(database_url)
    check_current(database_url)
    if url.get_backend_name() == "sqlite":
        return _fill_file(Path(str(url.database)), enter)
    return _fill_on_server(url, enter)


def _fill_file(file: Path, enter: Callable[[str], Tokens]) -> Tokens | None:
    with sqlite3.connect(file) as connection:
        if connection.execute("SELECT 1 FROM person").fetchone() is not None:
            return None
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    if "sqlite" not in _made:
        filled = Path(_folder.name) / "filled.sqlite3"
        shutil.copy(file, filled)
        tokens = enter(f"sqlite:///{filled}")
        with sqlite3.connect(filled) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        _made["sqlite"] = (str(filled), tokens)
    source, tokens = _made["sqlite"]
    for beside in ("-wal", "-shm"):
        Path(f"{file}{beside}").unlink(missing_ok=True)
    shutil.copy(source, file)
    return dict(tokens)


def _fill_on_server(url: URL, enter: Callable[[str], Tokens]) -> Tokens | None:
    with psycopg.connect(_plain(url)) as connection:
        if connection.execute("SELECT 1 FROM person").fetchone() is not None:
            return None
    server = f"{url.host}:{url.port}"
    with psycopg.connect(_plain(url.set(database="template1")), autocommit=True) as admin:
        if server not in _made:
            admin.execute(f'CREATE DATABASE filled TEMPLATE "{url.database}"')
            _made[server] = ("filled", enter(url.set(database="filled").render_as_string(hide_password=False)))
        name, tokens = _made[server]
        admin.execute(f'DROP DATABASE "{url.database}" WITH (FORCE)')
        admin.execute(f'CREATE DATABASE "{url.database}" TEMPLATE {name}')
    return dict(tokens)


def _plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
