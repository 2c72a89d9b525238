"""Sending held jobs to their site: intent written first, nothing sent inside a transaction, answers applied.

A job whose answer is uncertain stays `dispatching` and is never sent again before adoption has proven
that nothing of its batch can still arrive (broker/adopt.py).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Table, select
from sqlmodel import Session

from adapters.port import Accepted, After, Answer, JobSpec, Rejected, Scheduler, SiteError, Unreachable
from broker.accounts import give_accounts, lock_site, open_accounts, still_theirs
from broker.after import is_due, never_runs, others_of, still_to_come
from broker.bootstrap import Services
from broker.known import job_name
from broker.lifecycle import JobState
from broker.models import JobPayload
from broker.moves import Move, apply_moves, change_jobs, jobs
from broker.proofs import still_proven
from broker.queues import within_ceilings
from broker.schemas import SiteIn
from broker.settlement import end_unsent
from broker.tasks import TaskRows, rows_of_tasks, words_left
from quotas.models import Award
from storage.tables import new_id, utcnow

_payloads: Table = JobPayload.__table__  # type: ignore[attr-defined]
_awards: Table = Award.__table__  # type: ignore[attr-defined]

BACKOFF_S_MAX = 30
LEASE_MARGIN_S = 60


@dataclass(frozen=True, slots=True)
class Desk:
    """A worker's place at one site."""

    services: Services
    site_id: str
    settings: SiteIn
    scheduler: Scheduler


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs taken together; the id is used once in a life."""

    id: str
    jobs: Sequence[Row[Any]]
    after: Mapping[str, tuple[After, ...]] = field(default_factory=dict)
    """By job id: what the site's scheduler has to wait for."""


def dispatch(desk: Desk) -> int:
    """Send what is due, at most one batch; return how many jobs were taken."""
    open_accounts(desk.services, desk.site_id, desk.settings)
    now = utcnow()
    with desk.services.database.write() as session:
        batch = _claim(session, desk, now)
    if not batch.jobs:
        return 0
    specs, answers = _prepare(desk, batch)
    if specs:
        answers |= desk.scheduler.submit(batch.id, specs)
    with desk.services.database.write() as session:
        apply_answers(session, batch.id, answers, utcnow())
    return len(batch.jobs)


def _claim(session: Session, desk: Desk, now: datetime) -> Batch:
    """Take due jobs under a lease and write the intent to send them."""
    lock_site(session, desk.site_id)  # one worker at a time claims, so that a shared account stays one project's
    ready = give_accounts(session, desk.site_id, desk.settings, now)
    due = (
        select(*jobs.c, _awards.c.end_at.label("award_end_at"))
        .join(_awards, _awards.c.id == jobs.c.award_id)
        .where(
            jobs.c.site_id == desk.site_id,
            jobs.c.state == JobState.HELD.value,
            jobs.c.cancel_requested_at.is_(None),
        )
        .where((ready & is_due(jobs, waits_there=desk.settings.transport != "rest")) | (jobs.c.deadline_at <= now))
        .where(jobs.c.next_try_at.is_(None) | (jobs.c.next_try_at <= now))
        .order_by(jobs.c.id)
        .limit(desk.services.settings.dispatch_batch_max)
        .with_for_update(skip_locked=True, of=jobs)
    )
    rows = session.execute(due).all()
    late = [row for row in rows if min(row.deadline_at, row.award_end_at) <= now]
    end_unsent(session, late, JobState.CANCELLED, "the award ended before the job could start", now)
    offered = [row for row in rows if row not in late and (row.gpus == 0 or row.gpu_class in desk.settings.gpu_types)]
    after = others_of(session, offered)
    in_vain = {row.id: why for row in offered if (why := never_runs(after[row.id]))}
    for row in offered:
        if row.id in in_vain:
            end_unsent(session, [row], JobState.CANCELLED, in_vain[row.id], now)
    rest = [row for row in offered if row.id not in in_vain]
    taken = still_theirs(session, desk.settings, desk.site_id, rest)
    needs = desk.services.settings.data_needs
    taken = still_proven(session, desk.site_id, desk.settings.name, taken, needs, now)
    if desk.settings.isolation == "shared":
        taken = _of_one_project(session, desk.site_id, taken)
    taken = within_ceilings(session, taken)
    batch = Batch(new_id("bat"), taken, {row.id: still_to_come(after[row.id]) for row in taken if row.id in after})
    lease_until = now + timedelta(seconds=desk.services.settings.dispatch_timeout_s + LEASE_MARGIN_S)
    changes = {"batch_id": batch.id, "sent_at": now, "lease_until": lease_until, "reason": None}
    apply_moves(
        session,
        [Move(row.id, JobState.HELD, JobState.DISPATCHING, "taken by a worker", changes) for row in taken],
        now,
    )
    return batch


def _of_one_project(session: Session, site_id: str, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Keep one project's jobs: the one that has jobs at the shared account already, else the first that waits."""
    there = select(jobs.c.project_id).where(
        jobs.c.site_id == site_id, jobs.c.settled_at.is_(None), jobs.c.state != JobState.HELD.value
    )
    project_id = session.execute(there.limit(1)).scalar() or (rows[0].project_id if rows else None)
    waiting = [row for row in rows if row.project_id != project_id]
    reason = "the site has one shared account, which another project uses now"
    change_jobs(session, [(row.id, {"reason": reason}) for row in waiting if row.reason != reason])
    return [row for row in rows if row.project_id == project_id]


def _prepare(desk: Desk, batch: Batch) -> tuple[list[JobSpec], dict[str, Answer]]:
    """Return what to send, after bringing the snapshots it needs; a job whose snapshot fails has its answer."""
    with desk.services.database.read() as session:
        wanted = select(*_payloads.c).join(jobs, jobs.c.id == _payloads.c.job_id).where(jobs.c.batch_id == batch.id)
        payloads = {row.job_id: row for row in session.execute(wanted)}
        tasks = rows_of_tasks(session, [row.id for row in batch.jobs if row.array_words is not None])
    failed: dict[tuple[str, str], SiteError] = {}
    for account, digest in sorted({(row.account, row.snapshot) for row in batch.jobs if row.snapshot}):
        try:
            desk.scheduler.put_snapshot(account, digest, desk.services.settings.data_dir / "snapshots" / digest)
        except SiteError as error:
            failed[account, digest] = error
    answers: dict[str, Answer] = {}
    specs = []
    for row in batch.jobs:
        fault = failed.get((row.account, row.snapshot))
        if fault is None:
            specs.append(_spec(desk, row, payloads[row.id], batch.after.get(row.id, ()), tasks.get(row.id, {})))
        else:
            answers[job_name(row.id)] = fault if isinstance(fault, Rejected) else Unreachable(fault.reason)
    return specs, answers


def _spec(desk: Desk, row: Row[Any], payload: Row[Any], after: tuple[After, ...], tasks: TaskRows) -> JobSpec:
    return JobSpec(
        name=job_name(row.id),
        account=row.account,
        gpus=row.gpus,
        gpu_type=desk.settings.gpu_types[row.gpu_class] if row.gpus else "",
        time_limit_s=row.time_limit_s,
        script=payload.script,
        arguments=tuple(payload.arguments),
        environment=payload.environment,
        nodes=row.nodes,
        cpus_per_gpu=row.cpus_per_gpu,
        cpus=None if row.gpus else row.cpus,
        memory_mib=row.memory_mib,
        exclusive=row.exclusive,
        partition=row.partition,
        deadline=row.deadline_at,
        snapshot=row.snapshot,
        array=words_left(row, tasks),
        after=after,
        begin=row.begin_at if row.begin_at and row.begin_at > utcnow() else None,
        signal=row.signal,
        signal_s=row.signal_s,
        requeues=row.requeues,
        modules=tuple(payload.modules),
        container=payload.container,
        ids={"project": row.project_id, "award": row.award_id},
    )


def apply_answers(session: Session, batch_id: str, answers: Mapping[str, Answer], now: datetime) -> None:
    """Write what a site answered for the jobs that are still in this batch's hands."""
    wanted = select(*jobs.c).where(jobs.c.batch_id == batch_id, jobs.c.state == JobState.DISPATCHING.value)
    by_kind: dict[type, list[tuple[Row[Any], Any]]] = defaultdict(list)
    for row in session.execute(wanted.with_for_update()):
        answer = answers.get(job_name(row.id))
        if answer is not None:
            by_kind[type(answer)].append((row, answer))
    apply_moves(
        session,
        [queued(row, answer.site_job_id, "accepted by the site") for row, answer in by_kind[Accepted]],
        now,
    )
    apply_moves(session, [held_again(row, answer.reason, now) for row, answer in by_kind[Unreachable]], now)
    for row, answer in by_kind[Rejected]:
        end_unsent(session, [row], JobState.FAILED, f"the site refused it: {answer.reason}", now)
    rest = [pair for kind, pairs in by_kind.items() if kind not in (Accepted, Unreachable, Rejected) for pair in pairs]
    change_jobs(session, [(row.id, {"reason": answer.reason[:1000], "lease_until": now}) for row, answer in rest])


def queued(row: Row[Any], site_job_id: str, cause: str) -> Move:
    """Return the move of a job that the site has under an id."""
    changes = {"site_job_id": site_job_id, "lease_until": None, "reason": None}
    return Move(row.id, JobState.DISPATCHING, JobState.QUEUED, f"{cause} as {site_job_id}", changes)


def held_again(row: Row[Any], reason: str, now: datetime) -> Move:
    """Return the move of a job that is certain not to be at the site: it is tried again, later each time."""
    next_try_at = now + timedelta(seconds=min(2**row.tries, BACKOFF_S_MAX))
    changes = {
        "reason": reason[:1000],
        "tries": min(row.tries + 1, 30),
        "next_try_at": next_try_at,
        "lease_until": None,
        "batch_id": None,
        "sent_at": None,
    }
    return Move(row.id, JobState.DISPATCHING, JobState.HELD, f"not sent: {reason}", changes)
