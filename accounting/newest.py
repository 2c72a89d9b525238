"""Which usage records count: of each attempt the newest revision, with what it is worth."""

from sqlalchemy import ColumnElement, exists, select, true
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from accounting.models import ChargeValue, UsageRecord


def is_newest() -> ColumnElement[bool]:
    """Return the condition that no later revision of a usage record stands."""
    later = aliased(UsageRecord)
    return ~exists().where(
        col(later.attempt_id) == col(UsageRecord.attempt_id), col(later.revision) > col(UsageRecord.revision)
    )


def attempts_of(session: Session, job_id: str, task: int | None = None) -> list[tuple[UsageRecord, ChargeValue]]:
    """Return a job's attempts by their end, each with its value; of one task of an array only where it is named."""
    wanted = (
        select(UsageRecord, ChargeValue)
        .join(ChargeValue, col(ChargeValue.usage_id) == col(UsageRecord.id))
        .where(col(UsageRecord.job_id) == job_id, is_newest())
        .where(col(UsageRecord.task) == task if task is not None else true())
        .order_by(col(UsageRecord.ended_at), col(UsageRecord.id))
    )
    return [(record, value) for record, value in session.execute(wanted)]
