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


class GpuReportOut(BaseModel):
    """The GPU report; `ledger_credits` is what the ledger's settles of the same period sum up to."""

    by: Literal["project", "programme", "site"]
    from_on: date
    to_on: date
    rows: list[GpuReportRow]
    gpu_seconds: int
    charged_credits: int
    overrun_credits: int
    ledger_credits: int
    agrees: bool
