"""Awards."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, ForeignKey, String
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime


class Award(SQLModel, table=True):
    """The right of a project to consume credits between two moments; its balances are ledger accounts."""

    __tablename__ = "award"
    __table_args__ = (CheckConstraint("start_at < end_at", name="ends_after_start"),)

    id: str = Field(primary_key=True, max_length=32)
    project_id: str = Field(max_length=32, index=True)
    """Of the broker, which this folder does not import: an opaque id, no foreign key."""
    programme_id: str = Field(sa_column=Column(String(32), ForeignKey("programme.id"), nullable=False))
    awarded_credits: int = Field(sa_column=Column(BIG, nullable=False))
    start_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    end_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
