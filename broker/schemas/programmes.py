"""Programmes."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from broker.schemas.base import (
    TIME_LIMIT_S_MAX,
    Credits,
    Schema,
    Slug,
)


class ProgrammeIn(Schema):
    """A policy with a budget."""

    name: Slug
    kind: Literal["pack-ia", "challenge", "pooled-data", "training", "other"] = "other"
    budget_credits: Credits
    default_time_limit_s: int = Field(default=3600, ge=60, le=TIME_LIMIT_S_MAX)


class ProgrammeOut(BaseModel):
    """A programme and what is left to award."""

    id: str
    name: str
    kind: str
    default_time_limit_s: int
    unawarded_credits: int
    created_at: datetime
