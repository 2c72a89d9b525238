"""Awards, what happened to them, what was asked to change of them, and who approved what."""

from datetime import date, datetime

from sqlalchemy import CheckConstraint, Column, Date, ForeignKey, Index, String, Text
from sqlmodel import Field, SQLModel

from quotas.award_life import GRANTED, AwardState, ChangeKind, ChangeState, InProduction, Worked
from storage.tables import BIG, UtcTime


def _one_of(column: str, words: type[AwardState | ChangeKind | ChangeState | InProduction | Worked]) -> str:
    return f"{column} IN ({', '.join(repr(word.value) for word in words)})"


def _award(*, nullable: bool = False, index: bool = False, primary_key: bool = False) -> Column[str]:
    return Column(String(32), ForeignKey("award.id"), nullable=nullable, index=index, primary_key=primary_key)


_GRANTED = ", ".join(repr(state.value) for state in sorted(GRANTED))


class Award(SQLModel, table=True):
    """The right of a project to consume credits between two moments, from its request to its closure.

    What was requested, what was awarded and what it came to are all kept; the balances are ledger accounts,
    opened when it is granted.
    """

    __tablename__ = "award"
    __table_args__ = (
        CheckConstraint("start_at < end_at", name="ends_after_start"),
        CheckConstraint(_one_of("state", AwardState), name="state_known"),
        CheckConstraint("requested_credits > 0 AND proposed_credits > 0", name="amounts_positive"),
        CheckConstraint(f"(state IN ({_GRANTED})) = (awarded_credits IS NOT NULL)", name="awarded_when_granted"),
        CheckConstraint("(state = 'closed') = (final_credits IS NOT NULL)", name="final_when_closed"),
        Index("ix_award_state_end_at", "state", "end_at"),
    )

    id: str = Field(primary_key=True, max_length=32)
    project_id: str = Field(max_length=32, index=True)
    """Of the broker, which this folder does not import: an opaque id, no foreign key."""
    programme_id: str = Field(sa_column=Column(String(32), ForeignKey("programme.id"), nullable=False))
    budget_id: str = Field(sa_column=Column(String(32), ForeignKey("programme_budget.id"), nullable=False))
    """What it is drawn from, and where what it leaves goes back to."""
    state: str = Field(max_length=16)
    requested_credits: int = Field(sa_column=Column(BIG, nullable=False))
    proposed_credits: int = Field(sa_column=Column(BIG, nullable=False))
    """What is under review: the amount requested, until a manager proposes another."""
    awarded_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """What was granted, supplements not counted; NULL until then."""
    final_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """What its jobs consumed altogether; NULL until it is closed."""
    start_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    end_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    purpose: str | None = Field(default=None, max_length=1000)
    act_reference: str | None = Field(default=None, max_length=100)
    """The Region's decision that it rests on."""
    act_on: date | None = Field(default=None, sa_column=Column(Date, nullable=True))
    continues_id: str | None = Field(default=None, sa_column=_award(nullable=True))
    """The award of the same project that it goes on from."""
    requested_by: str | None = Field(default=None, max_length=32)
    """A person's opaque id; NULL for awards from before requests were kept."""
    requested_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    granted_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))
    closed_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class AwardEvent(SQLModel, table=True):
    """One step of an award: who, when, and in words. Never changed, never deleted."""

    __tablename__ = "award_event"

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    award_id: str = Field(sa_column=_award(index=True))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    person_id: str | None = Field(default=None, max_length=32)
    """NULL: the broker itself, at a date."""
    kind: str = Field(max_length=16)
    text: str = Field(sa_column=Column(Text, nullable=False))


class AwardChange(SQLModel, table=True):
    """A change of a granted award that was asked for, and what was decided."""

    __tablename__ = "award_change"
    __table_args__ = (
        CheckConstraint(_one_of("kind", ChangeKind), name="kind_known"),
        CheckConstraint(_one_of("state", ChangeState), name="state_known"),
        CheckConstraint("(kind IN ('supplement', 'transfer')) = (amount_credits IS NOT NULL)", name="amount_where_due"),
        CheckConstraint("amount_credits IS NULL OR amount_credits > 0", name="amount_positive"),
        CheckConstraint("(kind = 'extension') = (end_at IS NOT NULL)", name="end_where_due"),
        CheckConstraint("(kind = 'transfer') = (other_award_id IS NOT NULL)", name="other_where_due"),
        Index("ix_award_change_state", "state"),
    )

    id: str = Field(primary_key=True, max_length=32)
    award_id: str = Field(sa_column=_award(index=True))
    kind: str = Field(max_length=16)
    state: str = Field(max_length=16)
    amount_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    end_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))
    other_award_id: str | None = Field(default=None, sa_column=_award(nullable=True))
    reason: str = Field(max_length=1000)
    asked_by: str = Field(max_length=32)
    asked_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    decided_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))


class AwardOutcome(SQLModel, table=True):
    """The answers to the five questions that are put at an award's closure (docs/mission.md)."""

    __tablename__ = "award_outcome"
    __table_args__ = (
        CheckConstraint(_one_of("worked", Worked), name="worked_known"),
        CheckConstraint(_one_of("in_production", InProduction), name="in_production_known"),
        CheckConstraint("jobs_created IS NULL OR jobs_created >= 0", name="jobs_created_counted"),
    )

    award_id: str = Field(sa_column=_award(primary_key=True))
    worked: str = Field(max_length=16)
    """Whether the proof of concept worked."""
    in_production: str = Field(max_length=16)
    jobs_created: int | None = None
    """NULL: unknown."""
    benefit: str = Field(max_length=1000)
    """What it brought in return, in words."""
    next_step: str = Field(max_length=1000)
    person_id: str = Field(max_length=32)
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class Approval(SQLModel, table=True):
    """One person's approval of something that needs several eyes; its subject is an award, a change or a refund."""

    __tablename__ = "approval"

    subject_id: str = Field(primary_key=True, max_length=32)
    person_id: str = Field(primary_key=True, max_length=32)
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
