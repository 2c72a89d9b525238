"""Awards and what is left of them."""

from datetime import datetime

from pydantic import BaseModel, model_validator

from broker.schemas.base import (
    Credits,
    Day,
    Schema,
    Slug,
)
from broker.schemas.underuse import ForecastOut


class AwardIn(Schema):
    """The right of a project to consume credits; both dates are days in Europe/Paris, the end included."""

    project: Slug
    amount_credits: Credits
    start_on: Day
    end_on: Day

    @model_validator(mode="after")
    def _ends_after_start(self) -> "AwardIn":
        if self.end_on < self.start_on:
            raise ValueError("end_on is before start_on")
        return self


class ClassHours(BaseModel):
    """How long one GPU of a class could run on what is available, in seconds rounded down."""

    gpu_class: str
    weight_thousandths: int
    available_s: int


class AwardOut(BaseModel):
    """An award and its balances; awarded = available + held + consumed - overrun."""

    id: str
    project: str
    programme: str
    start_at: datetime
    end_at: datetime
    active: bool
    awarded_credits: int
    available_credits: int
    held_credits: int
    consumed_credits: int
    overrun_credits: int
    classes: list[ClassHours]


class QuotaOut(BaseModel):
    """What is left, award by award, for the projects the caller may see."""

    awards: list[AwardOut]
    forecasts: list[ForecastOut]
    """Of those that are granted and have not ended."""
