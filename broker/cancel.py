"""Cancelling: a wish that is recorded at once, and carried out where the job is."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlmodel import Session

from adapters.arrays import task_name
from adapters.port import Accepted, Known
from broker.arrays import ArrayChanges, TaskChange, apply_array
from broker.dispatch import Desk
from broker.known import has_its_id, job_name, known
from broker.lifecycle import ENDED, JobState
from broker.moves import change_jobs, event_row, events, jobs
from broker.settlement import end_unsent
from broker.tasks import job_tasks, rows_of_tasks, state_of, write_tasks
from storage.tables import utcnow

ASK_AGAIN = timedelta(seconds=15)
TASKS_AT_ONCE_MAX = 2000
"""Wishes about single tasks that are carried to a site in one turn."""
_AT_SITE = (JobState.QUEUED.value, JobState.RUNNING.value)


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


def request_cancel_task(session: Session, job_id: str, task: int, cause: str) -> None:
    """Record the wish for the end of one task of an array, or end it where the array was not sent yet.

    A task that has ended stays as it is. The caller has made sure that the array has this task.
    """
    row = session.execute(select(*jobs.c).where(jobs.c.id == job_id).with_for_update()).one()
    known = rows_of_tasks(session, [job_id])[job_id]
    seen, now = known.get(task), utcnow()
    wished = seen is not None and seen.cancel_requested_at is not None
    if wished or state_of(row.state, seen) in ENDED:
        return
    wish = {"cancel_requested_at": now, "cancel_cause": cause[:300]}
    said = event_row(job_id, JobState(row.state), f"task {task}: {cause}", now)
    session.connection().execute(events.insert(), [said])
    if row.state == JobState.HELD.value:
        _end_tasks(session, row, {task: wish}, now)
    else:
        write_tasks(session, job_id, known, {task: wish})


def send_cancels(desk: Desk) -> int:
    """Carry wishes to the site, again every 15 s until the end is seen; return how many were sent."""
    now = utcnow()
    with desk.services.database.write() as session:
        _end_held(session, desk.site_id)
        wanted = (
            select(jobs.c.id, jobs.c.account, jobs.c.site_job_id, jobs.c.sent_at, jobs.c.array_words)
            .where(jobs.c.site_id == desk.site_id, jobs.c.settled_at.is_(None), jobs.c.site_job_id.is_not(None))
            .where(jobs.c.cancel_requested_at.is_not(None))
            .where(jobs.c.state.in_(_AT_SITE), has_its_id(jobs))
            .where(jobs.c.cancel_sent_at.is_(None) | (jobs.c.cancel_sent_at < now - ASK_AGAIN))
        )
        rows = session.execute(wanted).all()
        tasks = _tasks_to_cancel(session, desk.site_id, now)
    if not rows and not tasks:
        return 0
    named = {task_name(job_name(task.job_id), task.task): task for task in tasks}
    unwanted = [known(row) for row in rows]
    unwanted += [Known(name, t.account, task_name(t.site_job_id, t.task), t.sent_at) for name, t in named.items()]
    answers = desk.scheduler.cancel(unwanted)
    arrived = [row for row in rows if isinstance(answers[job_name(row.id)], Accepted)]
    with desk.services.database.write() as session:
        change_jobs(session, [(row.id, {"cancel_sent_at": utcnow()}) for row in arrived])
        _mark_sent(session, [task for name, task in named.items() if isinstance(answers[name], Accepted)])
    return len(unwanted)


def _tasks_to_cancel(session: Session, site_id: str, now: datetime) -> Sequence[Row[Any]]:
    """Return the tasks whose end is to be asked for, where not that of their whole array is."""
    wanted = (
        select(job_tasks.c.job_id, job_tasks.c.task, jobs.c.account, jobs.c.site_job_id, jobs.c.sent_at)
        .join(jobs, jobs.c.id == job_tasks.c.job_id)
        .where(job_tasks.c.cancel_requested_at.is_not(None), job_tasks.c.settled_at.is_(None))
        .where(jobs.c.site_id == site_id, jobs.c.settled_at.is_(None), jobs.c.site_job_id.is_not(None))
        .where(jobs.c.cancel_requested_at.is_(None), jobs.c.state.in_(_AT_SITE), has_its_id(jobs))
        .where(job_tasks.c.cancel_sent_at.is_(None) | (job_tasks.c.cancel_sent_at < now - ASK_AGAIN))
    )
    return session.execute(wanted.order_by(job_tasks.c.cancel_requested_at).limit(TASKS_AT_ONCE_MAX)).all()


def _mark_sent(session: Session, tasks: Sequence[Row[Any]]) -> None:
    for task in tasks:
        one = (job_tasks.c.job_id == task.job_id) & (job_tasks.c.task == task.task)
        session.connection().execute(job_tasks.update().where(one).values(cancel_sent_at=utcnow()))


def _end_held(session: Session, site_id: str) -> None:
    """End jobs, and tasks, that came back to `held` after their cancellation was asked for."""
    held = select(*jobs.c).where(jobs.c.site_id == site_id, jobs.c.state == JobState.HELD.value)
    wanted = held.where(jobs.c.cancel_requested_at.is_not(None))
    for row in session.execute(wanted.with_for_update()).all():
        end_unsent(session, [row], JobState.CANCELLED, row.cancel_cause or "cancelled", utcnow())
    unwanted = (job_tasks.c.cancel_requested_at.is_not(None)) & (job_tasks.c.settled_at.is_(None))
    arrays = held.where(jobs.c.id.in_(select(job_tasks.c.job_id).where(unwanted)))
    for row in session.execute(arrays.with_for_update()).all():
        known = rows_of_tasks(session, [row.id])[row.id].values()
        wished = {seen.task for seen in known if seen.settled_at is None and seen.cancel_requested_at is not None}
        _end_tasks(session, row, {task: {} for task in wished}, utcnow())


def _end_tasks(session: Session, row: Row[Any], values: dict[int, dict[str, Any]], now: datetime) -> None:
    """End tasks of an array that was not sent: nothing is charged, and each part of the hold comes back."""
    ended = {"state": JobState.CANCELLED.value, "ended_at": now}
    changes = [TaskChange(task, {**columns, **ended}, settles=True) for task, columns in values.items()]
    apply_array(session, rows_of_tasks(session, [row.id])[row.id], ArrayChanges(row, changes, row.reason), now)
