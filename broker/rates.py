"""May a weight or a tariff begin on that day? Never where it would contradict what was held or charged since."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlmodel import Session, col

from accounting.models import UsageRecord
from broker.moves import jobs
from broker.tasks import job_tasks
from quotas.errors import RateRefused
from quotas.rates import (
    check_slices_weigh_less,
    next_tariff_at,
    next_weight_at,
    tariff_at,
)

REMEDY = "let it begin on a day from tomorrow on"


def check_weight(session: Session, name: str, weight_thousandths: int, valid_from: datetime) -> None:
    """Refuse a weight that would begin before a hold that froze another, or that makes a slice weigh too much.

    Raises:
        RateRefused: says what stands in the way.
    """
    connection = session.connection()
    check_slices_weigh_less(connection, name, weight_thousandths, valid_from)
    until = next_weight_at(connection, name, valid_from)
    held = [jobs.c.gpu_class == name, *_within(jobs.c.created_at, valid_from, until)]
    if session.execute(select(exists().where(*held))).scalar_one():
        raise RateRefused(f"jobs were held since that day at another weight of {name}", REMEDY)


def check_tariff(session: Session, site_id: str, gpu_class: str, valid_from: datetime, now: datetime) -> None:
    """Refuse a tariff that would begin before a charge valued at another, or before a job that began under it.

    Where no tariff is known yet nothing is contradicted: charges since then are unknown, and get their value.

    Raises:
        RateRefused: says what stands in the way.
    """
    connection = session.connection()
    if tariff_at(connection, site_id, gpu_class, valid_from) is None:
        return
    until = next_tariff_at(connection, site_id, gpu_class, valid_from)
    record = UsageRecord
    charged = exists().where(
        col(record.site_id) == site_id,
        col(record.gpu_class) == gpu_class,
        *_within(col(record.started_at), valid_from, until),
    )
    of_task = exists().where(job_tasks.c.job_id == jobs.c.id, *_within(job_tasks.c.started_at, valid_from, until))
    begun = or_(and_(*_within(jobs.c.started_at, valid_from, until)), of_task)
    covers_now = valid_from <= now and (until is None or until > now)
    unsettled = exists().where(
        jobs.c.site_id == site_id,
        jobs.c.gpu_class == gpu_class,
        jobs.c.settled_at.is_(None),
        or_(begun, jobs.c.started_at.is_(None), jobs.c.tasks_waiting > 0) if covers_now else begun,
    )
    if session.execute(select(or_(charged, unsettled))).scalar_one():
        raise RateRefused(f"{gpu_class} was held or charged there since that day at another tariff", REMEDY)


def _within(column: Any, start: datetime, end: datetime | None) -> list[ColumnElement[bool]]:
    return [column >= start] if end is None else [column >= start, column < end]
