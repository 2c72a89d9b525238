"""What lies unused goes back to the programme: announced, answered, decided, carried out. Each step once.

A rule of the programme's policy holds when so much of an award's time has gone by and less than so much of it is
consumed or held. Then the project's leads have some days to use it or to say why it must wait; a justification
that nobody has decided on puts the reclaim off for as long as it takes.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlmodel import Session, col, select

from quotas.amounts import PARIS, day_start, hours_text
from quotas.award_life import AwardState
from quotas.awards import Actor, note
from quotas.balances import Balances, balances_of
from quotas.errors import ReclaimDecided, ReclaimUnknown
from quotas.ledger import Movement, account_id
from quotas.models import Award, ReclaimNotice
from quotas.policy import ProgrammePolicy, ReclaimRule
from quotas.posting import lock_books, move
from storage.tables import new_id


class Outcome(StrEnum):
    """What became of a notice."""

    RECLAIMED = "reclaimed"
    ACCEPTED = "accepted"
    """The justification was: everything stays."""
    CANCELLED = "cancelled"
    """The rule holds no more, or there is nothing left to take."""


def gone_thousandths(award: Award, at: datetime) -> int:
    """Return how much of an award's time has gone by, rounded down; above 1000 after its end, below 0 before."""
    return 1000 * (at - award.start_at) // (award.end_at - award.start_at)


def used_thousandths(balances: Balances) -> int | None:
    """Return how much of an award is consumed or held, rounded down; None for one that has nothing."""
    return 1000 * (balances.consumed + balances.held) // balances.total if balances.total > 0 else None


def rule_that_holds(policy: ProgrammePolicy, award: Award, balances: Balances, at: datetime) -> ReclaimRule | None:
    """Return the last rule whose time has come, if the award is used less than it asks for."""
    gone, used = gone_thousandths(award, at), used_thousandths(balances)
    reached = [rule for rule in policy.reclaim if rule.after_thousandths <= gone]
    if not reached or used is None or used >= reached[-1].used_below_thousandths:
        return None
    return reached[-1]


def announce(
    session: Session, award: Award, policy: ProgrammePolicy, balances: Balances, at: datetime
) -> ReclaimNotice | None:
    """Announce a reclaim where a rule holds and it was not yet; None: there is nothing to announce.

    Nothing is announced that would be due after the award's end, when all of it goes back anyway, nor while
    another notice on the award is open.
    """
    rule = rule_that_holds(policy, award, balances, at)
    due_at = day_start(at.astimezone(PARIS).date() + timedelta(days=policy.notice_days + 1))
    if rule is None or due_at >= award.end_at:
        return None
    amount = balances.available * rule.take_thousandths // 1000
    if amount == 0 or _announced(session, award.id, rule.after_thousandths):
        return None
    notice = ReclaimNotice(
        id=new_id("rcl"),
        award_id=award.id,
        **rule.model_dump(),
        announced_credits=amount,
        noticed_at=at,
        due_at=due_at,
    )
    session.add(notice)
    session.flush()
    note(session, award.id, "reclaim", f"{hours_text(amount)} go back after {last_day(notice)} unless used", None, at)
    return notice


def last_day(notice: ReclaimNotice) -> str:
    """Return the last day on which a notice can be answered, in Paris."""
    return str((notice.due_at - timedelta(microseconds=1)).astimezone(PARIS).date())


def justify(session: Session, award_id: str, justification: str, by: Actor, at: datetime) -> ReclaimNotice:
    """Say why an award's credits must stay; in place of what was said before, until somebody decides.

    Raises:
        ReclaimUnknown: nothing was announced for this award, or it is over.
        ReclaimDecided: a justification was refused already.
    """
    notice = open_notice(session, award_id)
    if notice.decision is not None:
        raise ReclaimDecided(
            f"the justification for award {award_id} was refused: {notice.decision_reason}",
            f"use the award before {last_day(notice)} is over, or talk to the programme's manager",
        )
    notice.justification, notice.justified_by, notice.justified_at = justification, by.person_id, at
    note(session, award_id, "justified", justification, by, at)
    return notice


def decide(session: Session, award_id: str, reason: str, by: Actor, at: datetime, *, accepted: bool) -> ReclaimNotice:
    """Accept a justification, and everything stays; or refuse it, and the reclaim takes its course.

    Raises:
        ReclaimUnknown: nothing was announced for this award, or it is over.
        ReclaimDecided: there is no justification to decide on, it is decided, or it is one's own.
    """
    notice = open_notice(session, award_id)
    if notice.justification is None:
        raise ReclaimDecided(
            f"nobody has justified yet why award {award_id} lies unused",
            f"a lead of the project does it with `idf-compute award justify {award_id} TEXT`",
        )
    if notice.decision is not None:
        raise ReclaimDecided(f"the justification for award {award_id} was {notice.decision} already")
    if notice.justified_by == by.person_id:
        raise ReclaimDecided("nobody decides on a justification of their own", "let another manager decide")
    notice.decision = "accepted" if accepted else "refused"
    notice.decision_reason, notice.decided_by, notice.decided_at = reason, by.person_id, at
    note(session, award_id, "decided", f"justification {notice.decision}: {reason}", by, at)
    if accepted:
        _end(notice, Outcome.ACCEPTED, reason, at)
    return notice


def open_notice(session: Session, award_id: str) -> ReclaimNotice:
    """Return the notice on an award that is still to come, once nobody else can change it.

    Raises:
        ReclaimUnknown: there is none.
    """
    notice = _locked(session, _open_of(award_id))
    if notice is None:
        raise ReclaimUnknown(
            f"no reclaim is announced for award {award_id}", "`idf-compute award reclaims` shows those that were"
        )
    return notice


def carry_out(session: Session, award_id: str, at: datetime) -> ReclaimNotice | None:
    """Do what is due with an award's open notice; None: nothing, it is not due or waits for a decision.

    The amount is reckoned anew, and never more than was announced. A rule that holds no more calls it off.
    """
    lock_books(session)
    notice = _locked(session, _open_of(award_id))
    if notice is None:
        return None
    award = session.get_one(Award, award_id, populate_existing=True)
    balances = balances_of(session, [award_id])[award_id]
    called_off = _called_off(award, notice, balances, at)
    if called_off is not None:
        _end(notice, Outcome.CANCELLED, called_off, at)
        note(session, award_id, "reclaim", f"called off: {called_off}", None, at)
        return notice
    if at < notice.due_at or (notice.justification is not None and notice.decision is None):
        return None
    _take(session, award, notice, min(notice.announced_credits, _share(notice, balances)), at)
    return notice


def _take(session: Session, award: Award, notice: ReclaimNotice, amount: int, at: datetime) -> None:
    movement = Movement(
        id=f"reclaim/{notice.id}",
        kind="reclaim",
        debit_id=account_id("available", award.id),
        credit_id=account_id("programme", award.budget_id),
        amount=amount,
        reference_id=award.id,
    )
    move(session, movement, at)
    notice.reclaimed_credits = amount
    _end(notice, Outcome.RECLAIMED, "it lay unused", at)
    note(session, award.id, "reclaimed", f"{hours_text(amount)} went back to the programme's budget", None, at)


def _called_off(award: Award, notice: ReclaimNotice, balances: Balances, at: datetime) -> str | None:
    """Return why a notice is called off, None while its rule holds."""
    used = used_thousandths(balances)
    if award.state != AwardState.ACTIVE or at >= award.end_at:
        return "the award has ended"
    if used is not None and used >= notice.used_below_thousandths:
        return "the award is used again"
    if gone_thousandths(award, at) < notice.after_thousandths:
        return "the award lasts longer now"
    if _share(notice, balances) == 0:
        return "there is nothing left to take"
    return None


def _share(notice: ReclaimNotice, balances: Balances) -> int:
    return balances.available * notice.take_thousandths // 1000


def _end(notice: ReclaimNotice, outcome: Outcome, reason: str, at: datetime) -> None:
    notice.outcome, notice.outcome_reason, notice.ended_at = outcome.value, reason[:200], at


def _announced(session: Session, award_id: str, after_thousandths: int) -> bool:
    """Say whether this rule, or another one that is open still, was announced for an award."""
    wanted = select(ReclaimNotice.id).where(
        col(ReclaimNotice.award_id) == award_id,
        (col(ReclaimNotice.after_thousandths) >= after_thousandths) | col(ReclaimNotice.ended_at).is_(None),
    )
    return session.exec(wanted).first() is not None


def _open_of(award_id: str) -> Any:
    return select(ReclaimNotice).where(col(ReclaimNotice.award_id) == award_id, col(ReclaimNotice.ended_at).is_(None))


def _locked(session: Session, wanted: Any) -> ReclaimNotice | None:
    found: ReclaimNotice | None = session.exec(
        wanted.with_for_update().execution_options(populate_existing=True)
    ).one_or_none()
    return found
