"""Why a job of some size would pass or be refused."""

from pydantic import BaseModel

from broker.schemas.jobs import PlanOut


class WhyOut(BaseModel):
    """Whether it would pass: its plan, or the rule that refuses it, word for word as a submission would say it."""

    passes: bool
    plan: PlanOut | None
    code: str | None
    detail: str | None
    remedy: str | None
