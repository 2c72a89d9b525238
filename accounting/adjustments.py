"""What a site says of an attempt after its job was settled: a further usage record, and what it moves.

A usage record is never changed. An attempt that was charged and is now reported otherwise gets a further
revision, one that nobody had seen its first; both are posted as `adjust` (quotas.corrections).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, func, insert
from sqlmodel import Session, col, select

from accounting.meter import EndedAttempt, Owner, meter
from accounting.models import ChargeValue, UsageRecord
from accounting.newest import is_newest
from accounting.refund_values import refund_euros, set_euros
from accounting.tariffs import Rates, Valuation, added, details, euros_of, value_row
from quotas.corrections import Booked, adjust, available_of, booked, payers_of
from quotas.holds import HoldLeft, Side
from quotas.ledger import Posting, lock_head
from quotas.models import Refund
from quotas.posting import post_all
from storage.tables import new_id

_records: Table = UsageRecord.__table__  # type: ignore[attr-defined]
_values: Table = ChargeValue.__table__  # type: ignore[attr-defined]

WATCHED = ("gpus", "cpus", "memory_mib", "nodes", "elapsed_s", "charge_credits")
"""What of an attempt makes a revision when it is reported otherwise; what either report leaves open does not."""
CHARGES = ("charge_credits", "contract_charge_credits")
"""Columns of a usage record: its charge on the award's side and on the contract's."""


@dataclass(frozen=True, slots=True)
class Adjusted:
    """An attempt whose charge was corrected, in credits; `before` is None where it had none."""

    source_key: str
    gpus: int
    elapsed_s: int
    before: int | None
    after: int
    task: int | None = None


def adjust_job(
    session: Session, owner: Owner, attempts: Sequence[EndedAttempt], rates: Rates, at: datetime
) -> list[Adjusted]:
    """Post what is known otherwise of a settled job's attempts by now; nothing where all is as it was.

    The caller holds the job's row, so that two observations of one job come one after the other.

    Raises:
        Unmeterable: the source does not tell what was allocated; the caller undoes the whole job.
    """
    known = newest_records(session, [owner.job_id]).get(owner.job_id, {})
    adjusted = []
    for record, before in differing(session, owner, attempts, known, at):
        _write(session, owner, record, before, rates.value(record), at)
        charge = before.charge_credits if before is not None else None
        adjusted.append(
            Adjusted(
                record["source_key"],
                record["gpus"],
                record["elapsed_s"],
                charge,
                record["charge_credits"],
                record["task"],
            )
        )
    return adjusted


def newest_records(session: Session, job_ids: Sequence[str]) -> dict[str, dict[str, UsageRecord]]:
    """Return the newest usage record of each attempt, by job and source key."""
    found: dict[str, dict[str, UsageRecord]] = {}
    for record in session.exec(select(UsageRecord).where(col(UsageRecord.job_id).in_(job_ids), is_newest())):
        found.setdefault(record.job_id, {})[record.source_key] = record
    return found


def differing(
    session: Session,
    owner: Owner,
    attempts: Sequence[EndedAttempt],
    known: Mapping[str, UsageRecord],
    at: datetime,
) -> list[tuple[dict[str, Any], UsageRecord | None]]:
    """Return the records that attempts would get now where they differ from those that stand, each with the latter.

    Raises:
        Unmeterable: the source does not tell what was allocated.
    """
    left = _nothing_left(session, owner.job_id)
    found = []
    for attempt in attempts:
        before = known.get(attempt.source_key)
        record = dict(meter(owner, attempt, left, at).record)
        if before is not None and not any(_differs(record[name], getattr(before, name)) for name in WATCHED):
            continue
        if before is not None:
            record["revision"] = before.revision + 1
            record["id"] = f"{before.attempt_id}/{record['revision']}"
        found.append((record, before))
    return found


def _differs(now: int | None, before: int | None) -> bool:
    return now is not None and before is not None and now != before


def _nothing_left(session: Session, job_id: str) -> HoldLeft:
    """Return the job's hold as it is after its release: nothing is left on either side."""
    award, *contracts = (
        Side(payer.owner_id, 0, payer.weight_thousandths) for payer in payers_of(session.connection(), job_id)
    )
    return HoldLeft(job_id, award, contracts[0] if contracts else None)


def _write(
    session: Session,
    owner: Owner,
    record: dict[str, Any],
    before: UsageRecord | None,
    valuation: Valuation,
    at: datetime,
) -> None:
    """Move what a record changes, then keep it with its value."""
    connection = session.connection()
    lock_head(connection)
    payers = payers_of(connection, record["job_id"])
    books = [booked(connection, record["job_id"], payer.owner_id) for payer in payers]
    charges = [now.charged + more for now, more in zip(books, _more(record, before), strict=False)]
    refunds = _refunds_under(session, record, books, charges, at)
    said = _said(session, before, valuation)
    postings: list[Posting] = []
    for number, (payer, now) in enumerate(zip(payers, books, strict=True)):
        made = adjust(
            payer, now, record["job_id"], f"{record['attempt_id']}/{record['revision']}", charges[number],
            available_of(connection, payer.owner_id), refund_id=refunds.correction.id if refunds.correction else "",
            refunded=refunds.amounts[number], over=_over(connection, owner, record, payer.held, CHARGES[number]),
            details=None if number else said,
        )  # fmt: skip
        postings += made.postings
        if number == 0:
            record["overrun_credits"] = max(0, made.from_overrun)
    post_all(connection, postings, at)
    connection.execute(insert(_records), [record])
    connection.execute(insert(_values), [value_row(record["id"], valuation, at)])
    if refunds.correction is not None:  # after the new value stands, of which it is a part
        now, amount = books[0], refunds.correction.amount_credits
        worth = refund_euros(session, record["job_id"], amount, charges[0] - now.refunded, now.refunded)
        set_euros(refunds.correction, worth)
        session.flush()


def _more(record: Mapping[str, Any], before: UsageRecord | None) -> list[int]:
    """Return by how much the charge of an attempt grows, on the award's side and on the contract's."""
    return [(record[name] or 0) - ((getattr(before, name) or 0) if before is not None else 0) for name in CHARGES]


def _over(connection: Connection, owner: Owner, record: Mapping[str, Any], held: int, charge: str) -> int | None:
    """Return what the tasks of an array are charged beyond their parts of what was held, with a record's new charge."""
    if owner.tasks == 1:
        return None
    newest = UsageRecord
    others = (
        select(col(newest.task), func.sum(getattr(newest, charge)))
        .where(col(newest.job_id) == owner.job_id, col(newest.attempt_id) != record["attempt_id"], is_newest())
        .group_by(col(newest.task))
    )
    charges: dict[int | None, int] = {task: int(amount or 0) for task, amount in connection.execute(others)}
    charges[record["task"]] = charges.get(record["task"], 0) + (record[charge] or 0)
    part = held // owner.tasks
    return sum(max(0, amount - part) for amount in charges.values())


def _said(session: Session, before: UsageRecord | None, valuation: Valuation) -> str:
    """Word by how much an adjustment changes the value, for the chain."""
    euros = valuation.euros
    if before is not None and euros is not None:
        earlier = euros_of(session.get_one(ChargeValue, before.id))
        euros = None if earlier is None else added([euros, added([earlier], sign=-1)])
    return details(valuation.weight_thousandths, valuation.tariff, euros)


@dataclass(frozen=True, slots=True)
class _Refunds:
    """What a job's refunds come to under another charge, by side, and the row of their correction, if any."""

    amounts: list[int]
    correction: Refund | None = None


def _refunds_under(
    session: Session, record: Mapping[str, Any], books: Sequence[Booked], charges: Sequence[int], at: datetime
) -> _Refunds:
    """Never give back more than a job costs: take refunds back where the charge falls below, and restore them."""
    rows = session.exec(
        select(Refund).where(col(Refund.job_id) == record["job_id"], col(Refund.state) == "posted")
    ).all()
    asked = [row for row in rows if row.reason != "adjusted"]
    wanted = [sum(row.amount_credits for row in asked), sum(row.contract_amount_credits or 0 for row in asked)]
    amounts = [min(total, charge) for total, charge in zip(wanted, charges, strict=False)]
    changes = [after - now.refunded for after, now in zip(amounts, books, strict=True)]
    if not any(changes):
        return _Refunds(amounts)
    correction = Refund(
        id=new_id("rfd"),
        **{name: record[name] for name in ("job_id", "award_id", "project_id", "programme_id", "site_id")},
        state="posted",
        reason="adjusted",
        evidence=f"the charge became {charges[0]} credits with usage record {record['id']}",
        amount_credits=changes[0],
        with_contract=len(changes) > 1 and changes[1] != 0,
        contract_amount_credits=changes[1] if len(changes) > 1 else None,
        requested_at=at,
        decided_at=at,
    )
    session.add(correction)
    session.flush()
    return _Refunds(amounts, correction)
