"""The GPU report: what was used and charged, and whether the ledger says the same."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, func, select
from sqlmodel import Session, col

from accounting.models import UsageRecord
from quotas.models import Transfer

By = Literal["project", "programme", "site"]


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Use of one project, programme or site; `owner_id` is its id."""

    owner_id: str
    jobs: int
    attempts: int
    gpu_seconds: int
    charged_credits: int
    overrun_credits: int


def gpu_use(
    session: Session, start_at: datetime, end_at: datetime, by: By, project_ids: list[str] | None = None
) -> list[GpuUse]:
    """Sum up the attempts that ended in [start_at, end_at), most charged first; all projects if None."""
    owners = {"project": UsageRecord.project_id, "programme": UsageRecord.programme_id, "site": UsageRecord.site_id}
    owner = col(owners[by])
    charged = func.sum(col(UsageRecord.charge_credits))
    wanted = (
        select(
            owner,
            func.count(func.distinct(col(UsageRecord.job_id))),
            func.count(),
            func.sum(col(UsageRecord.gpus) * col(UsageRecord.elapsed_s)),
            charged,
            func.sum(col(UsageRecord.overrun_credits)),
        )
        .where(*_ended_within(start_at, end_at, project_ids))
        .group_by(owner)
        .order_by(charged.desc(), owner)
    )
    return [GpuUse(row[0], *(int(value) for value in row[1:])) for row in session.execute(wanted)]


def ledger_credits(session: Session, start_at: datetime, end_at: datetime, project_ids: list[str] | None = None) -> int:
    """Sum up the ledger's own settle and overrun transfers of those attempts, in credits."""
    total = 0
    for kind in ("settle", "overrun"):
        wanted = (
            select(func.coalesce(func.sum(col(Transfer.amount)), 0))
            .join(UsageRecord, col(Transfer.id) == f"{kind}/" + col(UsageRecord.id))
            .where(*_ended_within(start_at, end_at, project_ids))
        )
        total += int(session.execute(wanted).scalar_one())
    return total


def _ended_within(start_at: datetime, end_at: datetime, project_ids: list[str] | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        col(UsageRecord.ended_at) >= start_at,
        col(UsageRecord.ended_at) < end_at,
    ]
    if project_ids is not None:
        conditions.append(col(UsageRecord.project_id).in_(project_ids))
    return conditions
