"""Refunds: credits given back with a reason and evidence."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, Index, String, Text
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime


class Refund(SQLModel, table=True):
    """Credits of a job given back, or asked to be; its transfers are `refund/<id>` and `refund/<id>/overrun`."""

    __tablename__ = "refund"
    __table_args__ = (
        CheckConstraint("state IN ('requested', 'posted', 'refused')", name="state_known"),
        CheckConstraint("reason IN ('node_failure', 'operator_fault', 'other', 'adjusted')", name="reason_known"),
        CheckConstraint("(reason = 'adjusted' AND amount_credits <> 0) OR amount_credits > 0", name="amount_positive"),
        CheckConstraint("(state = 'requested') = (decided_at IS NULL)", name="dated_when_decided"),
        CheckConstraint(
            "region_micro_euros + company_micro_euros + partner_micro_euros = value_micro_euros", name="parts_make_whole"
        ),
        Index("ix_refund_decided_at", "decided_at"),
    )

    id: str = Field(primary_key=True, max_length=32)
    job_id: str = Field(max_length=32, index=True)
    """Of the broker, as are project, site and persons: opaque ids, no foreign keys."""
    award_id: str = Field(max_length=32)
    project_id: str = Field(max_length=32)
    programme_id: str = Field(max_length=32)
    site_id: str = Field(max_length=32)
    state: str = Field(max_length=16)
    reason: str = Field(max_length=16)
    """`adjusted`: nobody asked; the charge was adjusted below what had been given back, or up again."""
    evidence: str = Field(sa_column=Column(Text, nullable=False))
    amount_credits: int = Field(sa_column=Column(BIG, nullable=False))
    """Below zero where an adjustment took a part of earlier refunds back."""
    with_contract: bool
    """Whether the site gives its contract's capacity back too."""
    contract_amount_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """At the contract's weight; None until posted, and where the contract keeps what it was charged."""
    requested_by: str | None = Field(default=None, sa_column=Column(String(32), nullable=True))
    requested_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    decided_by: str | None = Field(default=None, sa_column=Column(String(32), nullable=True))
    decided_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))
    decision: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    """Why it was refused."""
    value_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """In proportion to the job's value when it was posted; NULL until then, or with `unknown_reason`."""
    region_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    company_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    partner_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    unknown_reason: str | None = Field(default=None, max_length=200)
