"""A way down that loses nothing: what an older release cannot hold is put aside, and brought back on the way up.

Tables put aside are called `kept_<name>`; only `migrate base`, which empties the database, drops them.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

PREFIX = "kept_"


def put_aside(*tables: str) -> None:
    """On the way down: copy whole tables aside, then drop them; name those first that refer to others."""
    for table in tables:
        op.execute(f"CREATE TABLE {PREFIX}{table} AS SELECT * FROM {table}")
        op.drop_table(table)


def bring_back(*tables: str) -> None:
    """On the way up, once they are made again: fill tables from what was put aside; name those first that others refer to."""
    for table in tables:
        if _stands(f"{PREFIX}{table}"):
            columns = ", ".join(f'"{column["name"]}"' for column in _inspect().get_columns(f"{PREFIX}{table}"))
            op.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {PREFIX}{table}")
            op.drop_table(f"{PREFIX}{table}")


def put_columns_aside(table: str, key: str, columns: Sequence[str]) -> None:
    """On the way down: copy columns aside, row by row under the table's key, `a, b` if it has two columns.

    The caller drops them then.
    """
    wanted = ", ".join((key, *columns))
    op.execute(f"CREATE TABLE {PREFIX}{table}_{columns[0]} AS SELECT {wanted} FROM {table}")


def bring_columns_back(table: str, key: str, columns: Sequence[str]) -> None:
    """On the way up, once they are added again: fill columns of the rows that were there on the way down."""
    kept = f"{PREFIX}{table}_{columns[0]}"
    if not _stands(kept):
        return
    op.execute(f"CREATE UNIQUE INDEX ix_{kept} ON {kept} ({key})")
    values = ", ".join(f"{column} = k.{column}" for column in columns)  # at once, for CHECKs that join them
    same = " AND ".join(f"k.{column} = {table}.{column}" for column in key.split(", "))
    op.execute(f"UPDATE {table} SET {values} FROM {kept} k WHERE {same}")
    op.drop_table(kept)


def drop_all() -> None:
    """Drop everything that was put aside: the way down to nothing."""
    for table in _inspect().get_table_names():
        if table.startswith(PREFIX):
            op.drop_table(table)


def _stands(table: str) -> bool:
    return _inspect().has_table(table)


def _inspect() -> sa.Inspector:
    return sa.inspect(op.get_bind())


def put_rows_aside(table: str, condition: str, mark: str = "rows") -> None:
    """On the way down: move the rows aside that the older release cannot hold; name those tables first that refer to others.

    `mark` tells what one release puts aside from what an older one does.
    """
    op.execute(f"CREATE TABLE {PREFIX}{table}_{mark} AS SELECT * FROM {table} WHERE {condition}")
    op.execute(f"DELETE FROM {table} WHERE {condition}")


def bring_rows_back(table: str, without: str = "", mark: str = "rows") -> None:
    """On the way up: bring such rows back, those first that others refer to; `without` is a key that is counted anew."""
    kept = f"{PREFIX}{table}_{mark}"
    if _stands(kept):
        names = [column["name"] for column in _inspect().get_columns(kept) if column["name"] != without]
        columns = ", ".join(f'"{name}"' for name in names)
        order = f" ORDER BY {without}" if without else ""
        op.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {kept}{order}")
        op.drop_table(kept)
