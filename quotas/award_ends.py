"""The end of an award: by its date or early, what is left of it goes back, then it is closed with what it came to.

Each step may be taken again by anybody at any time: what is done is not done twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from quotas.amounts import hours_text
from quotas.award_life import AwardState, ChangeKind, ChangeState, check_move, storage_dates
from quotas.awards import Actor, locked, note
from quotas.balances import balances_of
from quotas.ledger import Movement, account_id
from quotas.models import Account, Award, AwardChange, Programme, Transfer
from quotas.posting import move
from quotas.programmes import policy_of

AT_ONCE_MAX = 1000
"""Awards that one round looks at; those that are left wait for the next."""


def close_early(session: Session, award: Award, by: Actor, at: datetime) -> None:
    """End a running award now: what is available goes back at once, so that no further job finds credits.

    One that has not begun ends right after its beginning, since an award ends after it starts.
    """
    check_move(award.id, AwardState(award.state), AwardState.EXPIRING)
    award.state = AwardState.EXPIRING.value
    award.end_at = max(at, award.start_at + timedelta(seconds=1))
    note(session, award.id, "expiring", "closed early: no job starts any more", by, at)
    expire(session, award, at)


def expire(session: Session, award: Award, at: datetime) -> int:
    """Move what an ended award has available back to the budget that it came from; return how much, in credits.

    Holds that are released later bring more; each time is a transfer of its own.
    """
    available = balances_of(session, [award.id])[award.id].available
    if not available:
        return 0
    times = (
        select(func.count())
        .select_from(Transfer)
        .where(col(Transfer.reference_id) == award.id, col(Transfer.kind) == "expire")
    )
    number = session.exec(times).one() + 1
    move(
        session,
        Movement(
            id=f"expire/{award.id}/{number}",
            kind="expire",
            debit_id=account_id("available", award.id),
            credit_id=account_id("programme", award.budget_id),
            amount=available,
            reference_id=award.id,
        ),
        at,
    )
    note(session, award.id, "expired", f"{hours_text(available)} went back to the programme's budget", None, at)
    return available


def expired_credits(session: Session, award_id: str) -> int:
    """Return how much an award has given back at its end by now."""
    wanted = select(func.coalesce(func.sum(Transfer.amount), 0)).where(
        col(Transfer.reference_id) == award_id, col(Transfer.kind) == "expire"
    )
    return int(session.exec(wanted).one())


def due(session: Session, at: datetime) -> list[str]:
    """Return the ids of awards for which a date has come or money came back late, at most `AT_ONCE_MAX`."""
    ended = select(Award.id).where(col(Award.state) == AwardState.ACTIVE.value, col(Award.end_at) <= at)
    found = list(session.exec(ended.order_by(col(Award.end_at), col(Award.id)).limit(AT_ONCE_MAX)))
    found += [end.award.id for end in _ending(session) if end.is_due(at)]
    found += session.exec(_closed_with_late_money().limit(AT_ONCE_MAX))
    return found[:AT_ONCE_MAX]


def advance(session: Session, award_id: str, at: datetime, *, open_jobs: bool) -> AwardState:
    """Take the steps of an award whose date has come; return where it stands then.

    `open_jobs` says whether jobs of it are still to be settled: it is closed only when none is.
    """
    award = locked(session, award_id)
    if AwardState(award.state) is AwardState.ACTIVE and award.end_at <= at:
        award.state = AwardState.EXPIRING.value
        note(session, award.id, "expiring", "its end has come: no job starts any more", None, at)
    if AwardState(award.state) in (AwardState.EXPIRING, AwardState.CLOSED):
        expire(session, award, at)
    [end] = _ends(session, [award])
    if AwardState(award.state) is AwardState.EXPIRING and end.may_close(at) and not open_jobs:
        _close(session, award, end.consumed, at)
    elif AwardState(award.state) is AwardState.CLOSED and award.final_credits != end.consumed:
        award.final_credits = end.consumed
        note(session, award.id, "corrected", f"it came to {hours_text(end.consumed)} after its closure", None, at)
    return AwardState(award.state)


@dataclass(frozen=True, slots=True)
class _End:
    """An ended award with what its closure depends on."""

    award: Award
    available: int
    held: int
    consumed: int
    export_until: datetime
    early: bool

    def may_close(self, at: datetime) -> bool:
        return self.held == 0 and (self.early or self.export_until <= at)

    def is_due(self, at: datetime) -> bool:
        return self.available > 0 or self.may_close(at)


def _ending(session: Session) -> list[_End]:
    wanted = select(Award).where(col(Award.state) == AwardState.EXPIRING.value)
    return _ends(session, session.exec(wanted.order_by(col(Award.end_at), col(Award.id)).limit(AT_ONCE_MAX)).all())


def _ends(session: Session, awards: Sequence[Award]) -> list[_End]:
    balances = balances_of(session, [award.id for award in awards])
    early = _closed_early(session, [award.id for award in awards])
    found = []
    for award in awards:
        days = policy_of(session.get_one(Programme, award.programme_id)).export_days
        left = balances[award.id]
        until = storage_dates(award.end_at, days).export_until
        found.append(_End(award, left.available, left.held, left.consumed, until, award.id in early))
    return found


def _closed_early(session: Session, award_ids: Sequence[str]) -> set[str]:
    wanted = select(AwardChange.award_id).where(
        col(AwardChange.award_id).in_(award_ids),
        col(AwardChange.kind) == ChangeKind.CLOSURE.value,
        col(AwardChange.state) == ChangeState.GRANTED.value,
    )
    return set(session.exec(wanted))


def _closed_with_late_money() -> Any:
    """Select closed awards to which a refund, or a charge that came late, has happened since."""
    available, consumed = aliased(Account), aliased(Account)
    return (
        select(Award.id)
        .join(available, col(available.id) == "available:" + col(Award.id))
        .join(consumed, col(consumed.id) == "consumed:" + col(Award.id))
        .where(col(Award.state) == AwardState.CLOSED.value)
        .where((col(available.balance) > 0) | (col(consumed.balance) != col(Award.final_credits)))
        .order_by(col(Award.id))
    )


def _close(session: Session, award: Award, consumed: int, at: datetime) -> None:
    check_move(award.id, AwardState(award.state), AwardState.CLOSED)
    award.state = AwardState.CLOSED.value
    award.final_credits = consumed
    award.closed_at = at
    note(session, award.id, "closed", f"it came to {hours_text(consumed)}", None, at)
