"""What a refund is worth: the same part of the job's value as it is of its charge, at the same tariffs and shares."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from accounting.newest import attempts_of
from accounting.tariffs import Euros, added, divide, euros_of
from quotas.models import Refund

NOTHING = Euros(0, 0, 0, 0)
OF_UNKNOWN = "the value of an attempt is unknown: "

Worth = Euros | str
"""A value, or why it is unknown."""


def refund_euros(session: Session, job_id: str, amount: int, refundable: int, refunded: int) -> Worth:
    """Return what `amount` credits of a job are worth, of which `refundable` were left and `refunded` given back."""
    total, back = job_euros(session, job_id), _given_back(posted_refunds(session, job_id))
    if isinstance(total, str) or isinstance(back, str):
        return total if isinstance(total, str) else str(back)
    return part_of(total, back, amount, refundable, refunded)


def part_of(total: Euros, back: Euros, amount: int, refundable: int, refunded: int) -> Euros:
    """Return the value of a refund out of what is left of a job's value; of all that is left exactly that.

    An amount below zero takes refunds back, in proportion to what they were worth. Nothing is given back beyond
    the job's value, which an adjustment may have brought below what was given back.
    """
    if amount < 0:
        return added([_divided(-amount * back.value // refunded, back)], sign=-1)
    left = added([total, added([back], sign=-1)])
    if refundable <= 0 or left.value <= 0:
        return _divided(max(0, left.value), left)
    return _divided(amount * left.value // refundable, left)


def _divided(value: int, like: Euros) -> Euros:
    parts = (max(0, like.region), max(0, like.company), max(0, like.partner))
    return divide(value, parts) if value else NOTHING


def job_euros(session: Session, job_id: str) -> Worth:
    """Return what a job's attempts are worth together, or why that is unknown."""
    values = [value for _, value in attempts_of(session, job_id)]
    for value in values:
        if value.unknown_reason is not None:
            return f"{OF_UNKNOWN}{value.unknown_reason}"[:200]
    return added(euros for euros in map(euros_of, values) if euros is not None)


def posted_refunds(session: Session, job_id: str) -> Sequence[Refund]:
    """Return the refunds of a job that were posted, oldest first."""
    wanted = select(Refund).where(col(Refund.job_id) == job_id, col(Refund.state) == "posted")
    return session.exec(wanted.order_by(col(Refund.decided_at), col(Refund.id))).all()


def _given_back(refunds: Sequence[Refund]) -> Worth:
    for refund in refunds:
        if refund.unknown_reason is not None:
            return refund.unknown_reason
    return added(euros for euros in map(euros_of, refunds) if euros is not None)


def set_euros(refund: Refund, worth: Worth) -> None:
    """Keep what a refund is worth, or why that is unknown."""
    euros = None if isinstance(worth, str) else worth
    refund.unknown_reason = worth if isinstance(worth, str) else None
    refund.value_micro_euros = euros.value if euros else None
    refund.region_micro_euros = euros.region if euros else None
    refund.company_micro_euros = euros.company if euros else None
    refund.partner_micro_euros = euros.partner if euros else None


def complete_refunds(session: Session, job_id: str) -> None:
    """Value those refunds of a job whose value was unknown, now that its attempts' is known."""
    total = job_euros(session, job_id)
    if isinstance(total, str):
        return
    charged = sum(record.charge_credits for record, _ in attempts_of(session, job_id))
    back, refunded = NOTHING, 0
    for refund in posted_refunds(session, job_id):
        if refund.value_micro_euros is None:
            set_euros(refund, part_of(total, back, refund.amount_credits, charged - refunded, refunded))
        back = added([back, euros_of(refund) or NOTHING])
        refunded += refund.amount_credits
    session.flush()
