"""The end of awards, as it reaches jobs and money: a chore, which any worker may do at any time and again.

At the end of an award none of its jobs starts any more; what they leave goes back to the programme; when the
time for export is over and no hold is left, the award is closed.
"""

from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, Table, and_, or_, select
from sqlmodel import Session

from broker.bootstrap import Services
from broker.cancel import request_cancel
from broker.lifecycle import JobState
from broker.models import Job
from quotas.award_ends import advance, due
from quotas.award_life import AwardState
from quotas.errors import QuotaError
from quotas.models import Award
from storage.tables import utcnow

AGAIN_S = 600
JOBS_AT_ONCE_MAX = 1000
LATE_AFTER = timedelta(minutes=10)
"""A running job is ended by its site at its deadline; only one that still runs so much later is asked to end."""
ENDED = (AwardState.EXPIRING.value, AwardState.CLOSED.value)

_jobs: Table = Job.__table__  # type: ignore[attr-defined]
_awards: Table = Award.__table__  # type: ignore[attr-defined]
log = structlog.get_logger()


def carry_out(services: Services, now: datetime | None = None) -> int:
    """Take every step for which the time has come; return how many awards were looked at.

    One award that cannot take its step is logged and leaves the others alone.
    """
    at = now or utcnow()
    with services.database.read() as session:
        ids = due(session, at)
    for award_id in ids:
        try:
            with services.database.write() as session:
                advance_one(session, award_id, at)
        except QuotaError as error:
            log.exception("award-fault", award=award_id, error=repr(error))
    end_jobs(services, at)
    return len(ids)


def advance_one(session: Session, award_id: str, at: datetime) -> AwardState:
    """Take the steps of one award whose date has come, with regard to its jobs."""
    unsettled = select(_jobs.c.id).where(_jobs.c.award_id == award_id, _jobs.c.settled_at.is_(None)).limit(1)
    session.flush()
    return advance(session, award_id, at, open_jobs=session.execute(unsettled).first() is not None)


def end_jobs(services: Services, now: datetime, award_id: str | None = None) -> int:
    """Ask for the end of jobs whose award has ended, all or one award's; return how many were asked.

    Those that wait are asked at once, and so are all where the award ended before the job's deadline: it was
    closed early. Each job is a transaction of its own, which locks the job before the books as the worker does.
    """
    with services.database.read() as session:
        wanted = (
            select(_jobs.c.id, _awards.c.end_at, _jobs.c.deadline_at)
            .join(_awards, _awards.c.id == _jobs.c.award_id)
            .where(_jobs.c.settled_at.is_(None), _jobs.c.cancel_requested_at.is_(None), _awards.c.state.in_(ENDED))
            .where(_must_end(now), _awards.c.id == award_id if award_id is not None else _awards.c.id.is_not(None))
        )
        rows = session.execute(wanted.order_by(_jobs.c.id).limit(JOBS_AT_ONCE_MAX)).all()
    for row in rows:
        cause = "its award was closed early" if row.end_at < row.deadline_at else "its award has ended"
        with services.database.write() as session:
            request_cancel(session, row.id, cause)
    if rows:
        services.bell.ring()
    return len(rows)


def _must_end(now: datetime) -> ColumnElement[bool]:
    waits = _jobs.c.state.in_([JobState.HELD.value, JobState.DISPATCHING.value, JobState.QUEUED.value])
    runs = _jobs.c.state == JobState.RUNNING.value
    early = and_(_awards.c.end_at < _jobs.c.deadline_at, or_(waits, runs))
    return or_(waits, early, and_(runs, _jobs.c.deadline_at <= now - LATE_AFTER))
