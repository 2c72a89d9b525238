"""Ceilings on what is in use at one time: the quota beside the budget."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime


class Ceiling(SQLModel, table=True):
    """The most of something that an award, a project, a programme or a site may have in use at one time."""

    __tablename__ = "ceiling"
    __table_args__ = (
        CheckConstraint("scope IN ('award', 'project', 'programme', 'site')", name="scope_known"),
        CheckConstraint("what IN ('gpus_running', 'jobs_queued', 'bytes_stored')", name="what_known"),
        CheckConstraint("amount >= 0", name="not_negative"),
    )

    scope: str = Field(primary_key=True, max_length=16)
    scope_id: str = Field(primary_key=True, max_length=32)
    what: str = Field(primary_key=True, max_length=16)
    amount: int = Field(sa_column=Column(BIG, nullable=False))
    set_by: str = Field(max_length=32)
    """Of the broker: a person's opaque id."""
    set_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
