"""Refunds: credits given back with a reason and evidence, by one manager or by two people.

A refund is asked for, then posted or refused. Up to a bound a manager posts his own at once; above it, or where
an operator asks, a second person must approve.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from accounting.refund_values import refund_euros, set_euros
from accounting.tariffs import details, euros_of
from quotas.approvals import approve
from quotas.corrections import booked, check_refundable, payers_of, refund
from quotas.errors import RefundDecided
from quotas.ledger import Posting, lock_head
from quotas.models import Refund
from quotas.posting import post_all
from storage.tables import new_id

EYES = 2
"""Who asked and who approved: two people."""


@dataclass(frozen=True, slots=True)
class RefundWanted:
    """What somebody asks to be given back. `amount` is in credits; None is all that still can be."""

    job_id: str
    award_id: str
    project_id: str
    programme_id: str
    site_id: str
    reason: str
    evidence: str
    amount: int | None
    with_contract: bool


_COPIED = ("job_id", "award_id", "project_id", "programme_id", "site_id", "reason", "evidence", "with_contract")


def request_refund(session: Session, wanted: RefundWanted, person_id: str, alone_max: int, at: datetime) -> Refund:
    """Write a refund down and, up to `alone_max` credits, post it at once; above, another person approves it.

    Raises:
        RefundTooLarge: more than the job's charge minus earlier refunds, or nothing is left to give back.
    """
    lock_head(session.connection())
    now = booked(session.connection(), wanted.job_id, wanted.award_id)
    amount = now.refundable if wanted.amount is None else wanted.amount
    check_refundable(wanted.job_id, now, amount)
    made = Refund(
        id=new_id("rfd"),
        state="requested",
        amount_credits=amount,
        requested_by=person_id,
        requested_at=at,
        **{name: getattr(wanted, name) for name in _COPIED},
    )
    session.add(made)
    session.flush()
    approve(session, made.id, person_id, at)
    if amount <= alone_max:
        _post(session, made, person_id, at)
    return made


def approve_refund(session: Session, refund_id: str, person_id: str, at: datetime) -> Refund:
    """Approve a refund that somebody else asked for, and post it.

    Raises:
        ApprovedAlready: the same person asked for it.
        RefundDecided: it was posted or refused before.
        RefundTooLarge: others were given back meanwhile.
    """
    waiting = _waiting(session, refund_id)
    if approve(session, refund_id, person_id, at) >= EYES:
        _post(session, waiting, person_id, at)
    return waiting


def refuse_refund(session: Session, refund_id: str, person_id: str, why: str, at: datetime) -> Refund:
    """Refuse a refund, with the reason.

    Raises:
        RefundDecided: it was posted or refused before.
    """
    waiting = _waiting(session, refund_id)
    waiting.state, waiting.decided_by, waiting.decided_at, waiting.decision = "refused", person_id, at, why
    session.flush()
    return waiting


def _waiting(session: Session, refund_id: str) -> Refund:
    lock_head(session.connection())
    found = session.get_one(Refund, refund_id, populate_existing=True)
    if found.state != "requested":
        raise RefundDecided(f"refund {refund_id} is {found.state} already", "ask for another one")
    return found


def _post(session: Session, made: Refund, person_id: str, at: datetime) -> None:
    """Move the credits; the chain head's lock is held.

    Raises:
        RefundTooLarge: more than the job's charge minus earlier refunds.
    """
    connection = session.connection()
    award, *contracts = payers_of(connection, made.job_id)
    now = booked(connection, made.job_id, award.owner_id)
    check_refundable(made.job_id, now, made.amount_credits)
    set_euros(made, refund_euros(session, made.job_id, made.amount_credits, now.refundable, now.refunded))
    said = details(award.weight_thousandths, None, euros_of(made))
    movements = [*refund(award, now, made.job_id, made.id, made.amount_credits, said)]
    for contract in contracts if made.with_contract else []:
        paid = booked(connection, made.job_id, contract.owner_id)
        converted = made.amount_credits * contract.weight_thousandths // award.weight_thousandths
        made.contract_amount_credits = min(converted, paid.refundable)
        if made.contract_amount_credits:
            movements += refund(contract, paid, made.job_id, made.id, made.contract_amount_credits)
    post_all(connection, [Posting(movements=tuple(movements))], at)
    made.state, made.decided_by, made.decided_at = "posted", person_id, at
    session.flush()
