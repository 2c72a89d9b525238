"""Refunds."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, StringConstraints

from broker.schemas.base import Credits, Id, Schema, Text

Words = Annotated[Text, StringConstraints(strip_whitespace=True, min_length=3, max_length=2000)]


class RefundIn(Schema):
    """Credits of a job to be given back. `amount_credits` left out means all that still can be."""

    job_id: Id
    reason: Literal["node_failure", "operator_fault", "other"]
    evidence: Words
    """What proves it, such as a ticket's number."""
    amount_credits: Credits | None = None
    with_contract: bool = False
    """The site gives its contract's capacity back too."""


class RefusalIn(Schema):
    """Why a refund is refused."""

    why: Words


class Worth(BaseModel):
    """A value in micro-euros and who pays which part of it; None with the reason where it is unknown."""

    value_micro_euros: int | None = None
    region_micro_euros: int | None = None
    company_micro_euros: int | None = None
    partner_micro_euros: int | None = None
    unknown_reason: str | None = None


class RefundOut(Worth):
    """A refund, asked for, posted or refused; the value is None until it is posted."""

    id: str
    job_id: str
    project: str
    state: Literal["requested", "posted", "refused"]
    reason: Literal["node_failure", "operator_fault", "other", "adjusted"]
    evidence: str
    amount_credits: int
    """Below zero where an adjustment of the charge took earlier refunds back."""
    with_contract: bool
    contract_amount_credits: int | None
    requested_by: str | None
    """None where the broker itself corrected earlier refunds."""
    requested_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    decision: str | None
