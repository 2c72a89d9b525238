"""Contracts: capacity that the Region has at a site."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from broker.schemas.base import Day, GpuClassName, Label, Schema, Slug

MicroEuros = Annotated[int, Field(ge=0, le=2**53)]
GpuSeconds = Annotated[int, Field(gt=0, le=2**43)]
"""GPU-seconds of one class: at the greatest weight they still fit 64 bits as credits."""


class ContractIn(Schema):
    """Capacity of a GPU class at a site between two days: bought on an order, or allocated on a dossier."""

    site: Slug
    gpu_class: GpuClassName
    gpu_seconds: GpuSeconds
    start_on: Day
    end_on: Day
    kind: Literal["purchased", "allocated"]
    order_number: Label | None = None
    price_before_tax_micro_euros: MicroEuros | None = None
    price_with_tax_micro_euros: MicroEuros | None = None
    dossier: Label | None = None
    holder: Label | None = None
    holder_project: Label | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "ContractIn":
        if self.end_on < self.start_on:
            raise ValueError("end_on is before start_on")
        bought = (self.order_number, self.price_before_tax_micro_euros, self.price_with_tax_micro_euros)
        given = (self.dossier, self.holder, self.holder_project)
        if self.kind == "purchased" and (self.order_number is None or any(x is not None for x in given)):
            raise ValueError("a purchased contract has an order_number, and no dossier, holder or holder_project")
        if self.kind == "allocated" and (any(x is None for x in given) or any(x is not None for x in bought)):
            raise ValueError(
                "an allocated contract has a dossier, a holder and a holder_project, and no order or price"
            )
        if (self.price_before_tax_micro_euros is None) != (self.price_with_tax_micro_euros is None):
            raise ValueError("a price is given before and with tax, or not at all")
        if bought[1] is not None and bought[2] is not None and bought[2] < bought[1]:
            raise ValueError("the price with tax is below the price before tax")
        return self


class ContractReturnIn(Schema):
    """Capacity that goes out of a contract again."""

    gpu_seconds: GpuSeconds
    reason: Label


class ContractOut(BaseModel):
    """A contract and what is left of it, in GPU-seconds of its class rounded down."""

    id: str
    site: str
    gpu_class: str
    kind: str
    start_at: datetime
    end_at: datetime
    active: bool
    weight_thousandths: int
    """At signing."""
    gpu_seconds: int
    available_gpu_seconds: int
    held_gpu_seconds: int
    consumed_gpu_seconds: int
    overrun_gpu_seconds: int
    order_number: str | None
    price_before_tax_micro_euros: int | None
    price_with_tax_micro_euros: int | None
    dossier: str | None
    holder: str | None
    holder_project: str | None


class CeilingIn(Schema):
    """The most of something in use at one time; without an amount the ceiling is lifted."""

    scope: Literal["award", "project", "programme", "site"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
    """Of the project, programme or site; the id of the award."""
    what: Literal["gpus_running", "jobs_queued", "bytes_stored"]
    amount: int | None = Field(ge=0, le=2**53)


class CeilingOut(BaseModel):
    """A ceiling and what is in use under it; None where nothing can be counted yet, with the reason."""

    scope: str
    name: str
    what: str
    amount: int | None
    in_use: int | None
    in_use_unknown: str | None
