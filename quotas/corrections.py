"""Corrections of what a job was charged: refunds with evidence, adjustments to what is known later.

What a job has paid is derived from its own transfers, never kept beside them, and only under the chain head's
lock, so that two corrections at the same moment see each other. Per job and side of its hold

    overrun = max(0, max(0, charge - hold) - refunds)

and all the rest comes from the award (or the contract), whatever the order in which attempts and their revisions
became known, as long as what is available suffices. Each task of an array has its own part of the hold: there the
sum over the tasks of max(0, its charge - its part) stands for max(0, charge - hold).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, or_, select

from quotas.amounts import hours_text
from quotas.errors import RefundTooLarge
from quotas.holds import CONTRACT
from quotas.ledger import Movement, Posting, account_id
from quotas.models import Account, Hold, Transfer

_transfers: Table = Transfer.__table__  # type: ignore[attr-defined]
_accounts: Table = Account.__table__  # type: ignore[attr-defined]
_holds: Table = Hold.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Payer:
    """One side of a job's hold: whose credits pay, and how many the hold had set aside."""

    owner_id: str
    held: int
    weight_thousandths: int
    prefix: str = ""
    """What the kinds and ids of its transfers begin with."""


@dataclass(frozen=True, slots=True)
class Booked:
    """What one side has been charged for a job so far, by its transfers alone, in credits."""

    charged: int
    refunded: int
    overrun: int
    """Of what was charged and not given back: how much came from `overrun`."""

    @property
    def refundable(self) -> int:
        """What may still be given back."""
        return self.charged - self.refunded


def payers_of(connection: Connection, job_id: str) -> list[Payer]:
    """Return the sides of a job's hold: the award's, then the contract's where it has one."""
    hold = connection.execute(select(*_holds.c).where(_holds.c.id == job_id)).one()
    award = Payer(hold.award_id, hold.amount, hold.weight_thousandths)
    if hold.contract_id is None:
        return [award]
    return [award, Payer(hold.contract_id, hold.contract_amount, hold.contract_weight_thousandths, CONTRACT)]


def booked(connection: Connection, job_id: str, owner_id: str) -> Booked:
    """Sum up a job's transfers into and out of an owner's `consumed`; the caller holds the chain head's lock."""
    consumed, overrun = account_id("consumed", owner_id), account_id("overrun", owner_id)
    columns = (_transfers.c.kind, _transfers.c.debit_id, _transfers.c.credit_id, _transfers.c.amount)
    wanted = select(*columns).where(
        _transfers.c.reference_id == job_id,
        or_(_transfers.c.debit_id == consumed, _transfers.c.credit_id == consumed),
    )
    charged = refunded = from_overrun = 0
    for row in connection.execute(wanted):
        amount = row.amount if row.credit_id == consumed else -row.amount
        if row.kind.endswith("refund"):
            refunded -= amount
        else:
            charged += amount
        if overrun in (row.debit_id, row.credit_id):
            from_overrun += amount
    return Booked(charged, refunded, from_overrun)


def check_refundable(job_id: str, now: Booked, amount: int) -> None:
    """Refuse to give back nothing, or more than the job's charge minus earlier refunds.

    Raises:
        RefundTooLarge: says what may be given back.
    """
    if 0 < amount <= now.refundable:
        return
    raise RefundTooLarge(
        f"job {job_id} was charged {hours_text(now.charged)}, of which {hours_text(now.refunded)} were given back; "
        f"{hours_text(amount)} cannot be",
        f"give back at most {hours_text(now.refundable)} ({now.refundable} credits)"
        if now.refundable
        else "nothing is left to give back of it",
    )


def refund(
    payer: Payer, now: Booked, job_id: str, refund_id: str, amount: int, details: str | None = None
) -> tuple[Movement, ...]:
    """Give credits of a job back: to `overrun` first what overrun paid, the rest to what is available.

    Raises:
        RefundTooLarge: more than the job's charge minus earlier refunds.
    """
    check_refundable(job_id, now, amount)
    to_overrun = min(amount, now.overrun)
    parts = ((f"refund/{refund_id}/overrun", "overrun", -to_overrun),
             (f"refund/{refund_id}", "available", to_overrun - amount))  # fmt: skip
    return _movements(payer, "refund", job_id, parts, details)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """The postings that bring a side of a job to what is known now, in their order."""

    postings: tuple[Posting, ...]
    from_overrun: int
    """What of it overrun pays; below zero where it gets back."""


def adjust(
    payer: Payer,
    now: Booked,
    job_id: str,
    revision_id: str,
    charge: int,
    available: int,
    *,
    refund_id: str = "",
    refunded: int | None = None,
    over: int | None = None,
    details: str | None = None,
) -> Adjustment:
    """Bring what a job has paid to a new charge, after its hold was released.

    More comes from what is `available`, within what the hold had covered, and the rest from overrun; less goes
    back to overrun first. `refunded` is what refunds come to under the new charge, where that changes: then
    `refund_id` names the correction of the refunds. `over` is what tasks of an array were charged beyond their parts
    of the hold; None where the hold is one.
    """
    refunded_after = now.refunded if refunded is None else refunded
    net = charge - refunded_after
    beyond = max(0, charge - payer.held) if over is None else over
    overrun_wanted = max(0, beyond - refunded_after)
    paid_now = now.refundable - now.overrun
    paid_after = min(net - overrun_wanted, paid_now + available)
    paid, overrun = paid_after - paid_now, (net - paid_after) - now.overrun
    taken_back = now.refunded - refunded_after  # below zero: given back anew
    parts = (
        (f"adjust/{revision_id}", "available", paid),
        (f"adjust/{revision_id}/overrun", "overrun", overrun - taken_back),
    )
    movements = [
        *_movements(payer, "refund", job_id, ((f"refund/{refund_id}/overrun", "overrun", taken_back),), None),
        *_movements(payer, "adjust", job_id, parts, details),
    ]
    consumed = account_id("consumed", payer.owner_id)
    movements.sort(key=lambda movement: movement.credit_id != consumed)  # into it first: it may hold nothing else
    return Adjustment(tuple(Posting(movements=(movement,)) for movement in movements), overrun - taken_back)


def available_of(connection: Connection, owner_id: str) -> int:
    """Return what an owner has available; it stands while the caller holds the chain head's lock."""
    balance: int = connection.execute(
        select(_accounts.c.balance).where(_accounts.c.id == account_id("available", owner_id))
    ).scalar_one()
    return balance


def _movements(
    payer: Payer, kind: str, job_id: str, parts: Sequence[tuple[str, str, int]], details: str | None
) -> tuple[Movement, ...]:
    """Make the transfers between `consumed` and other accounts: out of those where the amount is above zero, else into.

    The details stand on the first one.
    """
    consumed = account_id("consumed", payer.owner_id)
    made: list[Movement] = []
    for id_, other_kind, amount in parts:
        if amount == 0:
            continue
        other = account_id(other_kind, payer.owner_id)
        debit, credit = (other, consumed) if amount > 0 else (consumed, other)
        said = details if not made else None
        made.append(Movement(f"{payer.prefix}{id_}", f"{payer.prefix}{kind}", debit, credit, abs(amount), job_id, said))
    return tuple(made)
