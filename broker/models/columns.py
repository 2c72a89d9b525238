"""Columns that many tables have."""

from typing import Any

from sqlalchemy import (
    Column,
    ForeignKey,
    String,
)
from sqlmodel import Field

from storage.tables import UtcTime


def reference(target: str, *, index: bool = False, primary_key: bool = False, nullable: bool = False) -> Any:
    """Make a column that names a row of another table by its id."""
    column = Column(String(40), ForeignKey(target), nullable=nullable, index=index, primary_key=primary_key)
    return Field(default=None, sa_column=column) if nullable else Field(sa_column=column)


def moment(*, nullable: bool = False) -> Any:
    """Make a column that holds a moment."""
    if nullable:
        return Field(default=None, sa_column=Column(UtcTime, nullable=True))
    return Field(sa_column=Column(UtcTime, nullable=False))
