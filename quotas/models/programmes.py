"""Programmes: policies with a budget."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column
from sqlmodel import Field, SQLModel

from storage.tables import UtcTime


class Programme(SQLModel, table=True):
    """A policy with a budget."""

    __tablename__ = "programme"
    __table_args__ = (CheckConstraint("default_time_limit_s >= 60", name="time_limit_positive"),)

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    kind: str = Field(max_length=32)
    default_time_limit_s: int
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
