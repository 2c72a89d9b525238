"""Reports."""

from datetime import date
from typing import Literal

from pydantic import BaseModel


class GpuReportRow(BaseModel):
    """GPU use of one project, programme or site in the period, by the end of the attempts."""

    key: str
    jobs: int
    attempts: int
    gpu_seconds: int
    charged_credits: int
    overrun_credits: int
    """What of the charges overrun paid."""
    refunds: int
    refunded_credits: int
    """Given back in the period, whenever it had been charged."""
    value_micro_euros: int | None
    """Of the attempts whose value is known; `unvalued_attempts` counts the others. None where none is known."""
    region_micro_euros: int | None
    company_micro_euros: int | None
    partner_micro_euros: int | None
    unvalued_attempts: int
    refunded_value_micro_euros: int | None
    """Of the refunds whose value is known; None where none is known."""
    refunded_company_micro_euros: int | None
    unvalued_refunds: int


class GpuReportOut(BaseModel):
    """The GPU report; what begins with `ledger_` is what the ledger's transfers of the same sum up to."""

    by: Literal["project", "programme", "site"]
    from_on: date
    to_on: date
    rows: list[GpuReportRow]
    gpu_seconds: int
    charged_credits: int
    overrun_credits: int
    refunded_credits: int
    ledger_credits: int
    ledger_refunded_credits: int
    agrees: bool
