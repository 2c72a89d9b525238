"""What people are told: letters that wait, went, or could not be sent."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String, Text, text
from sqlmodel import Field, SQLModel

from broker.models.columns import moment


class Notice(SQLModel, table=True):
    """A letter, written in the transaction of the event that it tells of; the worker sends it."""

    __tablename__ = "notice"
    __table_args__ = (
        CheckConstraint("person_id IS NOT NULL OR address IS NOT NULL", name="addressed"),
        CheckConstraint("sent_at IS NULL OR failed_at IS NULL", name="sent_or_failed"),
        CheckConstraint("tries >= 0", name="tries_not_negative"),
        Index(
            "ix_notice_due",
            "next_try_at",
            postgresql_where=text("sent_at IS NULL AND failed_at IS NULL"),
            sqlite_where=text("sent_at IS NULL AND failed_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True, max_length=32)
    key: str = Field(max_length=200, unique=True)
    """Made of the event and the addressee, so that one event makes one letter to each."""
    person_id: str | None = Field(
        default=None, sa_column=Column(String(40), ForeignKey("person.id"), nullable=True, index=True)
    )
    address: str | None = Field(default=None, max_length=320)
    """For somebody who is no person of the broker; else the person's own at the moment of sending."""
    subject: str = Field(max_length=200)
    text: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = moment()
    tries: int = 0
    """How often it was tried to send this one; a mail server that is away counts for none."""
    next_try_at: datetime = moment()
    """When it is due; moved on while a worker has it, so that a killed one's letter comes back."""
    sent_at: datetime | None = moment(nullable=True)
    failed_at: datetime | None = moment(nullable=True)
    """Given up, after `tries` or because it was refused for good."""
    reason: str | None = Field(default=None, max_length=200)
    """Why it was not sent, the last time."""
