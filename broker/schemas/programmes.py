"""Programmes: policy, budgets by period, funding shares by date."""

from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from broker.schemas.base import (
    Credits,
    Day,
    Schema,
    Slug,
)
from quotas.policy import ProgrammePolicy

Thousandths = Annotated[int, Field(ge=0, le=1000)]


class BudgetIn(Schema):
    """Credits for the awards that begin between two days in Europe/Paris, the last one included."""

    start_on: Day
    end_on: Day
    credits: Credits

    @model_validator(mode="after")
    def _ends_after_start(self) -> "BudgetIn":
        if self.end_on < self.start_on:
            raise ValueError("end_on is before start_on")
        return self


class SharesIn(Schema):
    """Who pays which share of a charge from a day on (Europe/Paris), in thousandths that make 1000."""

    valid_from: Day
    region_thousandths: Thousandths
    company_thousandths: Thousandths = 0
    partner_thousandths: Thousandths = 0


class FirstSharesIn(SharesIn):
    """The shares that a programme is opened with; without a day they count from its beginning."""

    valid_from: Day = date(1970, 1, 1)


class ProgrammeIn(ProgrammePolicy):
    """A policy under a name, with its budgets and shares; without shares the Region pays all."""

    name: Slug
    budgets: list[BudgetIn] = Field(default=[], max_length=100)
    shares: list[FirstSharesIn] = Field(default=[], max_length=100)

    def policy(self) -> ProgrammePolicy:
        """Return the policy alone."""
        return ProgrammePolicy(**{name: getattr(self, name) for name in ProgrammePolicy.model_fields})


class PolicyChange(BaseModel):
    """One field of a policy, in force and as it would be."""

    name: str
    before: Any
    after: Any


class PolicyPlanOut(BaseModel):
    """What a new policy would change."""

    changes: list[PolicyChange]


class BudgetOut(BaseModel):
    """A budget and what is left of it: unawarded = budget - awarded."""

    id: str
    start_at: datetime
    end_at: datetime
    budget_credits: int
    awarded_credits: int
    unawarded_credits: int


class SharesOut(BaseModel):
    """Shares and the moment from which they count."""

    valid_from: datetime
    region_thousandths: int
    company_thousandths: int
    partner_thousandths: int


class ProgrammeOut(BaseModel):
    """A programme, its policy in force, its budgets and its shares."""

    id: str
    name: str
    kind: str
    policy: ProgrammePolicy
    policy_version: int
    policy_since: datetime
    budgets: list[BudgetOut]
    shares: list[SharesOut]
    unawarded_credits: int | None
    """Of the budget that covers this moment; None when none does."""
    created_at: datetime
