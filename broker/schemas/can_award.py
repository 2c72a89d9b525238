"""Whether an award could be granted, and what binds."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

Side = Literal["policy", "budget", "contracts"]


class RefusalOut(BaseModel):
    """Why one side says no, and what would pass."""

    side: Side
    detail: str
    remedy: str


class BudgetLeftOut(BaseModel):
    """A budget that holds the award's first day."""

    programme: str
    id: str
    start_at: datetime
    end_at: datetime
    unawarded_credits: int


class CapacityLeftOut(BaseModel):
    """A contract that runs during the award, in credits at today's weight of its class."""

    id: str
    site: str
    gpu_class: str
    start_at: datetime
    end_at: datetime
    left_credits: int
    held_credits: int


class CanAwardOut(BaseModel):
    """The answer, and the numbers that it comes from: capacity left = left of all contracts - promised."""

    can_award: bool
    asked_credits: int
    start_at: datetime
    end_at: datetime
    binds: Side
    """Who says no, or would be the first to."""
    largest_credits: int | None
    """What budget and contracts would give at most; None: nothing. The policy may allow less."""
    refusals: list[RefusalOut]
    budget_left_credits: int
    budgets: list[BudgetLeftOut]
    promised_credits: int
    capacity_left_credits: int
    contracts: list[CapacityLeftOut]
