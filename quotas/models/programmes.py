"""Programmes: a policy, budgets by period, and who pays which share."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Column, ForeignKey, String
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime


class Programme(SQLModel, table=True):
    """A policy with budgets."""

    __tablename__ = "programme"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    kind: str = Field(max_length=32)
    policy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """The one in force, as quotas.policy.ProgrammePolicy writes it: the newest of `programme_policy`."""
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class ProgrammePolicyVersion(SQLModel, table=True):
    """A policy as it was from a moment on. Never changed, never deleted."""

    __tablename__ = "programme_policy"
    __table_args__ = (CheckConstraint("version > 0", name="version_positive"),)

    programme_id: str = Field(sa_column=Column(String(32), ForeignKey("programme.id"), primary_key=True))
    version: int = Field(primary_key=True)
    policy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    entered_by: str | None = Field(default=None, max_length=32)
    """A person's opaque id; None where release 0001 did not keep it."""
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class ProgrammeBudget(SQLModel, table=True):
    """What a programme may award to awards that begin in [start, end); its balance is a ledger account."""

    __tablename__ = "programme_budget"
    __table_args__ = (
        CheckConstraint("start_at < end_at", name="ends_after_start"),
        CheckConstraint("budget_credits > 0", name="positive"),
    )

    id: str = Field(primary_key=True, max_length=32)
    programme_id: str = Field(sa_column=Column(String(32), ForeignKey("programme.id"), nullable=False, index=True))
    start_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    end_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    budget_credits: int = Field(sa_column=Column(BIG, nullable=False))
    """All that the treasury gave it."""
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class FundingShare(SQLModel, table=True):
    """Who pays which share of a charge from a moment on, in thousandths. Never changed, never deleted."""

    __tablename__ = "funding_share"
    __table_args__ = (
        CheckConstraint("region_thousandths + company_thousandths + partner_thousandths = 1000", name="whole"),
        CheckConstraint(
            "region_thousandths >= 0 AND company_thousandths >= 0 AND partner_thousandths >= 0", name="not_negative"
        ),
    )

    programme_id: str = Field(sa_column=Column(String(32), ForeignKey("programme.id"), primary_key=True))
    valid_from: datetime = Field(sa_column=Column(UtcTime, primary_key=True))
    region_thousandths: int
    company_thousandths: int
    partner_thousandths: int
    entered_by: str | None = Field(default=None, max_length=32)
    """A person's opaque id; None where nobody entered it: all paid by the Region until somebody does."""
