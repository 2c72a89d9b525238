"""Kept answers."""

from datetime import datetime, timedelta

from sqlalchemy import (
    Column,
    Text,
)
from sqlmodel import Field, SQLModel

from storage.tables import UtcTime

ANSWERS_KEPT_FOR = timedelta(hours=24)


class Idempotency(SQLModel, table=True):
    """The first answer to a POST, kept 24 hours; `answer` is None where it bore a secret."""

    __tablename__ = "idempotency"

    person_id: str = Field(primary_key=True, max_length=32)
    method: str = Field(primary_key=True, max_length=8)
    route: str = Field(primary_key=True, max_length=100)
    key: str = Field(primary_key=True, max_length=200)
    request_sha256: str = Field(max_length=64)
    status: int
    answer: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    resource: str = Field(max_length=200)
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False, index=True))
