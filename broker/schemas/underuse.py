"""What becomes of awards at their present rate, and what goes back because it lies unused."""

from datetime import date, datetime

from pydantic import BaseModel

from broker.schemas.base import Schema, Sentences
from quotas.forecast import Risk


class ForecastOut(BaseModel):
    """A running award and what becomes of it; what is None is unknown, and the reason stands beside it."""

    award: str
    project: str
    programme: str
    start_at: datetime
    end_at: datetime
    total_credits: int
    available_credits: int
    held_credits: int
    consumed_credits: int
    burn_credits_per_day: int | None
    """Over the last 14 days, today included, or since its start."""
    burn_unknown: str | None
    runs_out_on: date | None
    """A day in Paris; None: not before its end, or unknown."""
    left_at_end_credits: int | None
    """Available or held still at its end, at the present rate."""
    burnable_credits: int | None
    """At most until its end, with all the GPUs that its ceiling lets run at once, on the heaviest class."""
    unburnable_credits: int | None
    ceiling_unknown: str | None
    risks: list[Risk]


class ReclaimOut(BaseModel):
    """A notice that credits go back, what was answered, and what became of it (`outcome`; None: still to come)."""

    id: str
    award: str
    project: str
    after_thousandths: int
    used_below_thousandths: int
    take_thousandths: int
    announced_credits: int
    noticed_at: datetime
    due_at: datetime
    """When the last day for an answer is over."""
    justification: str | None
    justified_by: str | None
    justified_at: datetime | None
    decision: str | None
    decision_reason: str | None
    decided_by: str | None
    decided_at: datetime | None
    outcome: str | None
    outcome_reason: str | None
    ended_at: datetime | None
    reclaimed_credits: int | None


class JustificationIn(Schema):
    """Why an award lies unused and must keep its credits."""

    text: Sentences


class JustificationDecisionIn(Schema):
    """Why a justification is accepted or refused."""

    reason: Sentences
