"""The GPU report: what was used, charged and given back, what it is worth, and whether the ledger says the same."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, String, case, cast, func, or_, select
from sqlmodel import Session, col

from accounting.models import ChargeValue, UsageRecord
from accounting.newest import is_newest
from accounting.tariffs import Euros
from quotas.models import Refund, Transfer

By = Literal["project", "programme", "site"]
NOTHING = Euros(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Period:
    """Moments [start, end), and whose projects; all of them if None."""

    start_at: datetime
    end_at: datetime
    project_ids: list[str] | None = None


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Use of one project, programme or site; `owner_id` is its id.

    Attempts count by their end and newest revision, refunds by the day on which they were posted.
    """

    owner_id: str
    jobs: int = 0
    attempts: int = 0
    gpu_seconds: int = 0
    charged_credits: int = 0
    overrun_credits: int = 0
    """What of the charges overrun paid, by the ledger."""
    value: Euros = field(default=NOTHING)
    """Of the attempts whose value is known."""
    unvalued_attempts: int = 0
    """How many have no value, since no tariff is known."""
    refunds: int = 0
    refunded_credits: int = 0
    refunded_value: Euros = field(default=NOTHING)
    unvalued_refunds: int = 0


@dataclass(frozen=True, slots=True)
class LedgerSays:
    """The ledger's own sums of the same attempts and refunds, in credits."""

    charged: int
    refunded: int


def gpu_use(session: Session, period: Period, by: By) -> list[GpuUse]:
    """Sum up the attempts that ended in a period and the refunds posted in it, most charged first."""
    uses = _attempts(session, period, by)
    for owner_id, (_, overrun) in _booked(session, period, by).items():
        uses[owner_id] = replace(uses[owner_id], overrun_credits=overrun)
    for owner_id, changes in _refunds(session, period, by).items():
        uses[owner_id] = replace(uses.get(owner_id, GpuUse(owner_id)), **changes)
    return sorted(uses.values(), key=lambda use: (-use.charged_credits, use.owner_id))


def ledger_says(session: Session, period: Period) -> LedgerSays:
    """Sum up the ledger's own transfers of those attempts and refunds."""
    charged = sum(amount for amount, _ in _booked(session, period, "site").values())
    ids = (literal_id("refund", Refund.id), literal_id("refund", Refund.id, "/overrun"))
    given_back = case(
        (col(Transfer.debit_id).startswith("consumed:"), col(Transfer.amount)), else_=-col(Transfer.amount)
    )
    refunded = 0
    for id_ in ids:
        wanted = select(func.coalesce(func.sum(given_back), 0)).join(Refund, col(Transfer.id) == id_)
        refunded += int(session.execute(wanted.where(*_posted_within(period))).scalar_one())
    return LedgerSays(charged, refunded)


def literal_id(kind: str, id_: Any, suffix: str = "") -> ColumnElement[str]:
    """Return the id of a transfer, made from a row's id by the database."""
    made: ColumnElement[str] = f"{kind}/" + col(id_)
    return made + suffix if suffix else made


def _attempts(session: Session, period: Period, by: By) -> dict[str, GpuUse]:
    record, value = UsageRecord, ChargeValue
    owner = col(getattr(record, f"{by}_id"))
    wanted = (
        select(
            owner,
            func.count(func.distinct(col(record.job_id))),
            func.count(),
            func.sum(col(record.gpus) * col(record.elapsed_s)),
            func.sum(col(record.charge_credits)),
            *_euros(value),
            func.count() - func.count(col(value.value_micro_euros)),
        )
        .join(value, col(value.usage_id) == col(record.id), isouter=True)
        .where(*_ended_within(period))
        .group_by(owner)
    )
    uses = {}
    for owner_id, *figures in session.execute(wanted):
        jobs, attempts, gpu_seconds, charged, total, region, company, partner, unvalued = map(int, figures)
        uses[owner_id] = GpuUse(
            owner_id, jobs, attempts, gpu_seconds, charged,
            value=Euros(total, region, company, partner), unvalued_attempts=unvalued,
        )  # fmt: skip
    return uses


def _booked(session: Session, period: Period, by: By) -> dict[str, tuple[int, int]]:
    """Return what the transfers of those attempts moved into `consumed`, and what of it out of `overrun`, by owner."""
    record = UsageRecord
    owner, revision = col(getattr(record, f"{by}_id")), cast(col(record.revision), String)
    adjusted = literal_id("adjust", record.attempt_id, "/") + revision
    first = col(record.revision) == 1
    joins = (
        (col(Transfer.id) == literal_id("settle", record.attempt_id)) & first,
        (col(Transfer.id) == literal_id("overrun", record.attempt_id)) & first,
        col(Transfer.id) == adjusted,
        col(Transfer.id) == adjusted + "/overrun",
    )
    counted = select(col(record.attempt_id)).where(*_ended_within(period))
    out = col(Transfer.debit_id).startswith("consumed:")
    signed = case((out, -col(Transfer.amount)), else_=col(Transfer.amount))
    of_overrun = or_(col(Transfer.debit_id).startswith("overrun:"), col(Transfer.credit_id).startswith("overrun:"))
    sums: dict[str, tuple[int, int]] = {}
    for join in joins:
        wanted = (
            select(owner, func.sum(signed), func.sum(case((of_overrun, signed), else_=0)))
            .join(Transfer, join)
            .where(col(record.attempt_id).in_(counted))
            .group_by(owner)
        )
        for owner_id, charged, overrun in session.execute(wanted):
            before = sums.get(owner_id, (0, 0))
            sums[owner_id] = (before[0] + int(charged), before[1] + int(overrun))
    return sums


def _refunds(session: Session, period: Period, by: By) -> dict[str, dict[str, Any]]:
    owner = col(getattr(Refund, f"{by}_id"))
    wanted = (
        select(
            owner,
            func.count(),
            func.sum(col(Refund.amount_credits)),
            *_euros(Refund),
            func.count() - func.count(col(Refund.value_micro_euros)),
        )
        .where(*_posted_within(period))
        .group_by(owner)
    )
    found: dict[str, dict[str, Any]] = {}
    for owner_id, number, amount, total, region, company, partner, unvalued in session.execute(wanted):
        found[owner_id] = {
            "refunds": int(number),
            "refunded_credits": int(amount),
            "refunded_value": Euros(int(total), int(region), int(company), int(partner)),
            "unvalued_refunds": int(unvalued),
        }
    return found


def _euros(model: Any) -> Iterable[ColumnElement[int]]:
    names = ("value_micro_euros", "region_micro_euros", "company_micro_euros", "partner_micro_euros")
    return [func.coalesce(func.sum(getattr(model, name)), 0) for name in names]


def _ended_within(period: Period) -> list[ColumnElement[bool]]:
    record = UsageRecord
    conditions = [col(record.ended_at) >= period.start_at, col(record.ended_at) < period.end_at, is_newest()]
    if period.project_ids is not None:
        conditions.append(col(record.project_id).in_(period.project_ids))
    return conditions


def _posted_within(period: Period) -> list[ColumnElement[bool]]:
    conditions = [
        col(Refund.state) == "posted",
        col(Refund.decided_at) >= period.start_at,
        col(Refund.decided_at) < period.end_at,
    ]
    if period.project_ids is not None:
        conditions.append(col(Refund.project_id).in_(period.project_ids))
    return conditions
