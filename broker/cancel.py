"""Cancelling: a wish that is recorded at once, and carried out where the job is."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlmodel import Session

from adapters.port import Accepted, Known
from broker.dispatch import Desk, job_name
from broker.lifecycle import ENDED, JobState
from broker.moves import change_jobs, jobs
from broker.settlement import end_unsent
from storage.tables import utcnow

ASK_AGAIN = timedelta(seconds=15)


def request_cancel(session: Session, job_id: str, cause: str) -> Row[Any]:
    """Record the wish, or end a job that was not sent yet; an ended job stays as it is. Returns its row.

    `dispatching` or uncertain: the wish waits until adoption has answered (docs/rules.md).
    """
    row = session.execute(select(*jobs.c).where(jobs.c.id == job_id).with_for_update()).one()
    state = JobState(row.state)
    now = utcnow()
    if state is JobState.HELD:
        end_unsent(session, [row], JobState.CANCELLED, cause, now)
        change_jobs(session, [(job_id, {"cancel_requested_at": now, "cancel_cause": cause})])
    elif state not in ENDED and row.cancel_requested_at is None:
        change_jobs(session, [(job_id, {"cancel_requested_at": now, "cancel_cause": cause})])
    return session.execute(select(*jobs.c).where(jobs.c.id == job_id)).one()


def send_cancels(desk: Desk) -> int:
    """Carry wishes to the site, again every 15 s until the end is seen; return how many were sent."""
    now = utcnow()
    with desk.services.database.write() as session:
        _end_held(session, desk.site_id)
        wanted = (
            select(jobs.c.id, jobs.c.account, jobs.c.site_job_id, jobs.c.sent_at)
            .where(jobs.c.site_id == desk.site_id, jobs.c.settled_at.is_(None), jobs.c.site_job_id.is_not(None))
            .where(jobs.c.cancel_requested_at.is_not(None))
            .where(jobs.c.state.in_([JobState.QUEUED.value, JobState.RUNNING.value]))
            .where(jobs.c.cancel_sent_at.is_(None) | (jobs.c.cancel_sent_at < now - ASK_AGAIN))
        )
        rows = session.execute(wanted).all()
    if not rows:
        return 0
    answers = desk.scheduler.cancel([Known(job_name(r.id), r.account, r.site_job_id, r.sent_at) for r in rows])
    arrived = [row for row in rows if isinstance(answers[job_name(row.id)], Accepted)]
    with desk.services.database.write() as session:
        change_jobs(session, [(row.id, {"cancel_sent_at": utcnow()}) for row in arrived])
    return len(rows)


def _end_held(session: Session, site_id: str) -> None:
    """End jobs that came back to `held` after their cancellation was asked for."""
    wanted = select(*jobs.c).where(
        jobs.c.site_id == site_id,
        jobs.c.state == JobState.HELD.value,
        jobs.c.cancel_requested_at.is_not(None),
    )
    for row in session.execute(wanted.with_for_update()).all():
        end_unsent(session, [row], JobState.CANCELLED, row.cancel_cause or "cancelled", utcnow())
