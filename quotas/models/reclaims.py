"""Notices that an award lies unused, what was answered, and what became of it."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime

_OPEN = text("ended_at IS NULL")


class ReclaimNotice(SQLModel, table=True):
    """Said once per award and rule: credits go back on a day unless they are used or a manager lets them stay."""

    __tablename__ = "reclaim_notice"
    __table_args__ = (
        UniqueConstraint("award_id", "after_thousandths"),
        Index("uq_reclaim_notice_open", "award_id", unique=True, postgresql_where=_OPEN, sqlite_where=_OPEN),
        CheckConstraint("announced_credits > 0", name="announced_positive"),
        CheckConstraint("noticed_at < due_at", name="due_after_notice"),
        CheckConstraint(
            "(justification IS NULL) = (justified_at IS NULL) AND (justification IS NULL) = (justified_by IS NULL)",
            name="justified_by_somebody",
        ),
        CheckConstraint("decision IS NULL OR decision IN ('accepted', 'refused')", name="decision_known"),
        CheckConstraint(
            "(decision IS NULL) = (decided_at IS NULL) AND (decision IS NULL) = (decided_by IS NULL)",
            name="decided_by_somebody",
        ),
        CheckConstraint("decision IS NULL OR justification IS NOT NULL", name="decision_on_justification"),
        CheckConstraint("decided_by <> justified_by", name="decided_by_another"),
        CheckConstraint("outcome IS NULL OR outcome IN ('reclaimed', 'accepted', 'cancelled')", name="outcome_known"),
        CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="outcome_when_ended"),
        CheckConstraint(
            "(outcome IS NOT NULL AND outcome = 'reclaimed') = (reclaimed_credits IS NOT NULL)",
            name="credits_when_reclaimed",
        ),
        CheckConstraint(
            "reclaimed_credits IS NULL OR (reclaimed_credits > 0 AND reclaimed_credits <= announced_credits)",
            name="never_more_than_announced",
        ),
    )

    id: str = Field(primary_key=True, max_length=32)
    award_id: str = Field(sa_column=Column(String(32), ForeignKey("award.id"), nullable=False))
    after_thousandths: int
    """The rule as it was when it was announced: a policy that changes meanwhile changes nothing announced."""
    used_below_thousandths: int
    take_thousandths: int
    announced_credits: int = Field(sa_column=Column(BIG, nullable=False))
    """The most that is taken."""
    noticed_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    due_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    """When the last day for an answer is over, in Paris."""
    justification: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    justified_by: str | None = Field(default=None, max_length=32)
    """Of the broker: a person's opaque id."""
    justified_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))
    decision: str | None = Field(default=None, max_length=16)
    decision_reason: str | None = Field(default=None, max_length=1000)
    decided_by: str | None = Field(default=None, max_length=32)
    decided_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))
    outcome: str | None = Field(default=None, max_length=16)
    """NULL: still to come."""
    outcome_reason: str | None = Field(default=None, max_length=200)
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))
    reclaimed_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
