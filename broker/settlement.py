"""The money's side of a job's end: charge its attempts, give back the rest, say so with a date."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Table
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from accounting.meter import EndedAttempt, Owner, meter, usage_id
from accounting.models import UsageRecord
from accounting.tariffs import Rates, valued
from broker.lifecycle import JobState
from broker.moves import Move, apply_moves, change_jobs
from quotas.charging import Rule, rules_by_id
from quotas.holds import HoldLeft, Side, release
from quotas.ledger import Posting
from quotas.models import Hold
from quotas.posting import post_all

holds: Table = Hold.__table__  # type: ignore[attr-defined]


def end_unsent(session: Session, rows: Sequence[Row[Any]], state: JobState, cause: str, now: datetime) -> None:
    """End jobs that never came to exist at a site: nothing is charged, the whole hold is released."""
    if not rows:
        return
    _release(session, [row.id for row in rows], now)
    done = {
        "ended_at": now,
        "settled_at": now,
        "charged_credits": 0,
        "reason": cause[:1000],
        "lease_until": None,
    }
    apply_moves(session, [Move(row.id, JobState(row.state), state, cause, done) for row in rows], now)


def charge(session: Session, ended: Mapping[str, tuple[Row[Any], Sequence[EndedAttempt]]], now: datetime) -> None:
    """Write usage records and charges of ended attempts that have none yet, job by job.

    Raises:
        Unmeterable: the source does not tell what was allocated; nothing is written.
    """
    left = holds_left(session, list(ended))
    known = _recorded(session, list(ended))
    rates = Rates(session.connection())
    rules = rules_by_id(session.connection(), [row.charging_rule_id for row, _ in ended.values()])
    postings: list[Posting] = []
    for job_id, (row, attempts) in ended.items():
        for attempt in attempts:
            if usage_id(job_id, attempt.source_key) in known:
                continue
            metered = meter(owner_of(row, rules[row.charging_rule_id]), attempt, left[job_id], now)
            left[job_id] = metered.left
            postings.append(valued(metered.posting, metered.record["id"], rates.value(metered.record), now))
    post_all(session.connection(), postings, now)


def settle_jobs(session: Session, rows: Sequence[Row[Any]], now: datetime) -> None:
    """Release what ended jobs did not use and date their settlement."""
    ids = [row.id for row in rows]
    _release(session, ids, now)
    charges = charges_of(session, ids)
    change_jobs(session, [(id_, {"settled_at": now, "charged_credits": charges.get(id_, 0)}) for id_ in ids])


def holds_left(session: Session, job_ids: Sequence[str]) -> dict[str, HoldLeft]:
    """Return what is left of each job's hold, by job id."""
    return {hold.id: _left(hold) for hold in session.execute(select_columns(*holds.c).where(holds.c.id.in_(job_ids)))}


def _left(hold: Row[Any]) -> HoldLeft:
    contract = None
    if hold.contract_id is not None:
        contract = Side(hold.contract_id, hold.contract_remaining, hold.contract_weight_thousandths)
    return HoldLeft(hold.id, Side(hold.award_id, hold.remaining, hold.weight_thousandths), contract)


def _release(session: Session, job_ids: Sequence[str], now: datetime) -> None:
    post_all(session.connection(), [release(left) for left in holds_left(session, job_ids).values()], now)


def charges_of(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Return what each job's attempts were charged together, in credits, by the newest revision of each."""
    columns = (UsageRecord.job_id, UsageRecord.attempt_id, UsageRecord.charge_credits)
    wanted = select(*columns).where(col(UsageRecord.job_id).in_(job_ids)).order_by(col(UsageRecord.revision))
    newest = {(job_id, attempt_id): amount for job_id, attempt_id, amount in session.execute(wanted)}
    totals: dict[str, int] = {}
    for (job_id, _), amount in newest.items():
        totals[job_id] = totals.get(job_id, 0) + amount
    return totals


def _recorded(session: Session, job_ids: Sequence[str]) -> set[str]:
    return set(session.exec(select(UsageRecord.id).where(col(UsageRecord.job_id).in_(job_ids))))


def owner_of(row: Row[Any], rule: Rule) -> Owner:
    """Return whose attempts those of a job's row are; `rule` is the one of its hold."""
    return Owner(
        job_id=row.id,
        award_id=row.award_id,
        project_id=row.project_id,
        programme_id=row.programme_id,
        site_id=row.site_id,
        gpu_class=row.gpu_class,
        weight_thousandths=row.weight_thousandths,
        rule=rule,
        exclusive=row.exclusive,
    )
