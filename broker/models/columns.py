"""Columns that many tables have."""

from typing import Any

from sqlalchemy import (
    Column,
    ForeignKey,
    String,
)
from sqlmodel import Field

from storage.tables import UtcTime


def reference(target: str, *, index: bool = False, primary_key: bool = False) -> Any:
    """Make a column that names a row of another table by its id."""
    return Field(sa_column=Column(String(40), ForeignKey(target), nullable=False, index=index, primary_key=primary_key))


def moment(*, nullable: bool = False) -> Any:
    """Make a column that holds a moment."""
    if nullable:
        return Field(default=None, sa_column=Column(UtcTime, nullable=True))
    return Field(sa_column=Column(UtcTime, nullable=False))
