"""Finding out what became of jobs whose sending was cut short, by us or by the network."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlmodel import Session

from adapters.port import Absent, Accepted, Rejected, Sent
from broker.dispatch import Desk, held_again, queued
from broker.known import job_name
from broker.lifecycle import JobState
from broker.moves import apply_moves, change_jobs, jobs
from broker.settlement import end_unsent
from storage.tables import utcnow

ADOPT_MAX = 500
ASK_AGAIN_S = 5


def forget_leases(desk: Desk) -> None:
    """Say that no worker holds a lease at this site: true when the only worker starts anew."""
    with desk.services.database.write() as session:
        sending = select(jobs.c.id).where(jobs.c.site_id == desk.site_id, jobs.c.state == JobState.DISPATCHING.value)
        change_jobs(session, [(id_, {"lease_until": utcnow()}) for id_ in session.execute(sending).scalars().all()])


def adopt(desk: Desk) -> int:
    """Ask the site for jobs whose lease is over; return how many were asked for."""
    now = utcnow()
    with desk.services.database.read() as session:
        wanted = (
            select(*jobs.c)
            .where(
                jobs.c.site_id == desk.site_id,
                jobs.c.state == JobState.DISPATCHING.value,
                jobs.c.lease_until <= now,
            )
            .order_by(jobs.c.id)
            .limit(ADOPT_MAX)
        )
        rows = session.execute(wanted).all()
    if not rows:
        return 0
    sent = [Sent(job_name(row.id), row.account, row.batch_id, row.sent_at) for row in rows]
    answers = desk.scheduler.adopt(sent)
    with desk.services.database.write() as session:
        moves, unknown = [], []
        for row in _still_ours(session, {row.id: row.batch_id for row in rows}):
            answer = answers[job_name(row.id)]
            if isinstance(answer, Accepted):
                moves.append(queued(row, answer.site_job_id, "found at the site"))
            elif isinstance(answer, Absent):
                moves.append(held_again(row, "the site proved that it never arrived", now))
            elif isinstance(answer, Rejected):
                end_unsent(session, [row], JobState.FAILED, f"the site refused it: {answer.reason}", utcnow())
            else:
                unknown.append((row.id, _ask_again(answer.reason)))
        apply_moves(session, moves, utcnow())
        change_jobs(session, unknown)
    return len(rows)


def _still_ours(session: Session, asked: Mapping[str, str]) -> list[Row[Any]]:
    """Return the jobs that are still in the hands of the batch that was asked about."""
    wanted = select(*jobs.c).where(jobs.c.id.in_(asked), jobs.c.state == JobState.DISPATCHING.value)
    return [row for row in session.execute(wanted.with_for_update()) if row.batch_id == asked[row.id]]


def _ask_again(reason: str) -> dict[str, str | datetime]:
    return {"reason": reason[:1000], "lease_until": utcnow() + timedelta(seconds=ASK_AGAIN_S)}
