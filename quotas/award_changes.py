"""Changes of a granted award: more credits, a later end, credits for another award, an early closure.

Each is asked for, then decided; a manager's own wish is decided at once unless two managers must approve.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlmodel import Session, col, select

from quotas import approvals
from quotas.amounts import PARIS, hours_text, period
from quotas.award_ends import close_early
from quotas.award_life import AwardState, ChangeKind, ChangeState, InProduction, Worked, state_wrong
from quotas.awards import Actor, enough_approve, locked, needs_two, note, terms_of
from quotas.balances import balances_of
from quotas.errors import AwardChangeRefused, AwardTooSmall, AwardUnknown
from quotas.ledger import Movement, account_id
from quotas.models import Award, AwardChange, AwardOutcome, Programme
from quotas.policy import ProgrammePolicy, check_amount, check_length
from quotas.posting import lock_books, move
from quotas.programmes import draw_from_budget, policy_of
from storage.tables import new_id

OPEN = (ChangeState.REQUESTED.value, ChangeState.IN_REVIEW.value)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answers to the five questions at an award's closure; jobs created are None when unknown."""

    worked: Worked
    in_production: InProduction
    jobs_created: int | None
    benefit: str
    next_step: str


def ask_supplement(
    session: Session, award_id: str, amount_credits: int, reason: str, by: Actor, at: datetime
) -> AwardChange:
    """Ask for more credits.

    Raises:
        AwardStateWrong, PolicyRefused: it has ended, or would be larger than its programme's largest award.
    """
    award = _running(session, award_id, "supplemented", at)
    _check_largest(session, award, amount_credits)
    change = _asked(award, ChangeKind.SUPPLEMENT, reason, by, at)
    change.amount_credits = amount_credits
    return _kept(session, change, f"a supplement of {hours_text(amount_credits)}", by, at)


def ask_extension(session: Session, award_id: str, end_on: date, reason: str, by: Actor, at: datetime) -> AwardChange:
    """Ask for a later end; `end_on` is the new last day in Paris.

    Raises:
        AwardStateWrong, AwardChangeRefused, PolicyRefused: it has ended, would end no later, or last too long.
    """
    award = _running(session, award_id, "extended", at)
    _check_end(session, award, end_on)
    change = _asked(award, ChangeKind.EXTENSION, reason, by, at)
    change.end_at = period(end_on, end_on)[1]
    return _kept(session, change, f"an extension until {end_on}", by, at)


def ask_transfer(
    session: Session, award_id: str, other_id: str, amount_credits: int, reason: str, by: Actor, at: datetime
) -> AwardChange:
    """Ask that credits go to another award of the same programme.

    Raises:
        AwardStateWrong, AwardUnknown, AwardChangeRefused, AwardTooSmall, PolicyRefused: the rule that refuses it.
    """
    award = _running(session, award_id, "transferred from", at)
    _check_transfer(session, award, other_id, amount_credits, at)
    change = _asked(award, ChangeKind.TRANSFER, reason, by, at)
    change.amount_credits, change.other_award_id = amount_credits, other_id
    return _kept(session, change, f"a transfer of {hours_text(amount_credits)} to award {other_id}", by, at)


def ask_closure(session: Session, award_id: str, outcome: Outcome, reason: str, by: Actor, at: datetime) -> AwardChange:
    """Ask that an award ends now, with the answers on what came of it.

    Raises:
        AwardStateWrong, AwardChangeRefused: it has ended already, or its closure is asked for already.
    """
    award = _running(session, award_id, "closed early", at)
    waiting = select(AwardChange.id).where(
        col(AwardChange.award_id) == award.id,
        col(AwardChange.kind) == ChangeKind.CLOSURE.value,
        col(AwardChange.state).in_(OPEN),
    )
    standing = session.exec(waiting).first()
    if standing is not None:
        raise AwardChangeRefused(
            f"the closure of award {award.id} is asked for already, as {standing}",
            f"decide it: idf-compute award approve {standing}",
        )
    keep_outcome(session, award.id, outcome, by, at)
    return _kept(session, _asked(award, ChangeKind.CLOSURE, reason, by, at), "an early closure", by, at)


def keep_outcome(session: Session, award_id: str, outcome: Outcome, by: Actor, at: datetime) -> None:
    """Keep the answers on an award's outcome; later ones take the place of earlier ones."""
    session.merge(
        AwardOutcome(
            award_id=award_id,
            worked=outcome.worked.value,
            in_production=outcome.in_production.value,
            jobs_created=outcome.jobs_created,
            benefit=outcome.benefit,
            next_step=outcome.next_step,
            person_id=by.person_id,
            at=at,
        )
    )
    session.flush()


def answer_late(session: Session, award_id: str, outcome: Outcome, by: Actor, at: datetime) -> Award:
    """Keep the answers on the outcome of an award that has ended by its date.

    Raises:
        AwardStateWrong: it was never granted.
    """
    award = locked(session, award_id)
    state = AwardState(award.state)
    if state not in (AwardState.EXPIRING, AwardState.CLOSED):
        raise state_wrong(award.id, state, "told the outcome of")
    keep_outcome(session, award.id, outcome, by, at)
    note(session, award.id, "outcome", "the five questions were answered", by, at)
    return award


def approve_change(session: Session, change_id: str, by: Actor, at: datetime) -> AwardChange:
    """Approve a change; once enough did, it is carried out in the same transaction.

    Raises:
        AwardChangeRefused: it is decided already, or a rule refuses it by now.
        AwardStateWrong, AwardTooSmall, ApprovedAlready, PolicyRefused, ProgrammeTooSmall: likewise.
    """
    change = _undecided(session, change_id)
    award = _running(session, change.award_id, "changed", at)
    policy = _policy(session, award)
    amount = _amount_at_stake(session, award, change)
    if not enough_approve(session, change.id, policy, amount, by, at):
        return _wait_for_another(session, change, policy, by, at)
    said = _CARRY_OUT[ChangeKind(change.kind)](session, award, change, by, at)
    change.state, change.decided_at = ChangeState.GRANTED.value, at
    note(session, award.id, change.kind, f"{change.id} granted: {said}", by, at)
    return change


def refuse_change(session: Session, change_id: str, reason: str, by: Actor, at: datetime) -> AwardChange:
    """Refuse a change, with a reason.

    Raises:
        AwardChangeRefused: it is decided already.
    """
    return _end_change(session, change_id, ChangeState.REFUSED, reason, by, at)


def withdraw_change(session: Session, change_id: str, reason: str, by: Actor, at: datetime) -> AwardChange:
    """Take back a change that was asked for.

    Raises:
        AwardChangeRefused: it is decided already.
    """
    return _end_change(session, change_id, ChangeState.WITHDRAWN, reason, by, at)


def total_credits(session: Session, award_id: str) -> int:
    """Return what an award has had altogether by now: granted, supplemented and transferred, less what went back."""
    return balances_of(session, [award_id])[award_id].total


def _running(session: Session, award_id: str, wanted: str, at: datetime) -> Award:
    award = locked(session, award_id)
    state = AwardState(award.state)
    if state is AwardState.ACTIVE and award.end_at <= at:
        state = AwardState.EXPIRING
    if state is not AwardState.ACTIVE:
        raise state_wrong(award.id, state, wanted)
    return award


def _policy(session: Session, award: Award) -> ProgrammePolicy:
    return policy_of(session.get_one(Programme, award.programme_id, populate_existing=True))


def _check_largest(session: Session, award: Award, more_credits: int) -> None:
    check_amount(_policy(session, award), total_credits(session, award.id) + more_credits)


def _check_end(session: Session, award: Award, end_on: date) -> None:
    terms = terms_of(award)
    if end_on <= terms.end_on:
        raise AwardChangeRefused(
            f"award {award.id} lasts until {terms.end_on}, and an extension ends later than that",
            f"extend it until {terms.end_on + timedelta(days=1)} or later",
        )
    check_length(_policy(session, award), terms.start_on, end_on)


def _check_transfer(session: Session, award: Award, other_id: str, amount_credits: int, at: datetime) -> None:
    if other_id == award.id:
        raise AwardChangeRefused("an award cannot be transferred to itself", "name another award")
    other = _running(session, other_id, "transferred to", at)
    if other.programme_id != award.programme_id:
        raise AwardChangeRefused(
            f"awards {award.id} and {other.id} belong to two programmes, and credits stay within one",
            "name an award of the same programme",
        )
    available = balances_of(session, [award.id])[award.id].available
    if amount_credits > available:
        raise AwardTooSmall(
            f"award {award.id} has {hours_text(available)} available, {hours_text(amount_credits)} were to go",
            f"transfer at most {hours_text(available)}",
        )
    _check_largest(session, other, amount_credits)


def _asked(award: Award, kind: ChangeKind, reason: str, by: Actor, at: datetime) -> AwardChange:
    return AwardChange(
        id=new_id("chg"),
        award_id=award.id,
        kind=kind.value,
        state=ChangeState.REQUESTED.value,
        reason=reason,
        asked_by=by.person_id,
        asked_at=at,
    )


def _kept(session: Session, change: AwardChange, what: str, by: Actor, at: datetime) -> AwardChange:
    """Write a wish down; one that needs two managers is approved by the manager who enters it."""
    session.add(change)
    note(session, change.award_id, "asked", f"{what}, {change.id}: {change.reason}", by, at)
    award = session.get_one(Award, change.award_id)
    if by.is_manager and needs_two(_policy(session, award), _amount_at_stake(session, award, change)):
        approvals.approve(session, change.id, by.person_id, at)
        change.state = ChangeState.IN_REVIEW.value
        session.flush()
    return change


def _amount_at_stake(session: Session, award: Award, change: AwardChange) -> int:
    """Return what a change counts against the threshold of four eyes.

    A supplement counts with all that the award has had, else many small ones would pass under one pair of eyes.
    An extension and a closure give nothing away.
    """
    if change.amount_credits is None:
        return 0
    if change.kind == ChangeKind.SUPPLEMENT.value:
        return total_credits(session, award.id) + change.amount_credits
    return change.amount_credits


def _wait_for_another(
    session: Session, change: AwardChange, policy: ProgrammePolicy, by: Actor, at: datetime
) -> AwardChange:
    change.state = ChangeState.IN_REVIEW.value
    above = hours_text(policy.four_eyes_above_credits or 0)
    said = f"{change.id} approved; above {above} a second manager must approve too"
    note(session, change.award_id, "approved", said, by, at)
    return change


def _undecided(session: Session, change_id: str) -> AwardChange:
    lock_books(session)
    change = session.get(AwardChange, change_id, populate_existing=True)
    if change is None:
        raise AwardUnknown(f"no change {change_id} of an award", "`idf-compute award changes` shows those that wait")
    if change.state not in OPEN:
        raise AwardChangeRefused(
            f"the {change.kind} {change.id} is {change.state} already",
            f"`idf-compute award show {change.award_id}` tells its story",
        )
    return change


def _end_change(
    session: Session, change_id: str, after: ChangeState, reason: str, by: Actor, at: datetime
) -> AwardChange:
    change = _undecided(session, change_id)
    change.state, change.decided_at = after.value, at
    note(session, change.award_id, after.value, f"{change.kind} {change.id}: {reason}", by, at)
    return change


def _supplement(session: Session, award: Award, change: AwardChange, _by: Actor, _at: datetime) -> str:
    amount = change.amount_credits or 0
    _check_largest(session, award, amount)
    programme = session.get_one(Programme, award.programme_id)
    source, target = account_id("programme", award.budget_id), account_id("available", award.id)
    wanted = Movement(f"supplement/{change.id}", "supplement", source, target, amount, change.id)
    draw_from_budget(session, award, programme, wanted)
    return f"{hours_text(amount)} more"


def _extension(session: Session, award: Award, change: AwardChange, _by: Actor, _at: datetime) -> str:
    end_at = change.end_at or award.end_at
    end_on = (end_at - timedelta(microseconds=1)).astimezone(PARIS).date()
    _check_end(session, award, end_on)
    award.end_at = end_at
    return f"it lasts until {end_on}; jobs that were submitted before keep the deadline that they were sent with"


def _transfer(session: Session, award: Award, change: AwardChange, by: Actor, at: datetime) -> str:
    amount, other_id = change.amount_credits or 0, change.other_award_id or ""
    _check_transfer(session, award, other_id, amount, at)
    debit_id, credit_id = account_id("available", award.id), account_id("available", other_id)
    move(session, Movement(f"transfer/{change.id}", "transfer", debit_id, credit_id, amount, change.id), at)
    note(session, other_id, "transfer", f"{change.id}: {hours_text(amount)} received from award {award.id}", by, at)
    return f"{hours_text(amount)} went to award {other_id}"


def _closure(session: Session, award: Award, _change: AwardChange, by: Actor, at: datetime) -> str:
    close_early(session, award, by, at)
    return "it ended early"


_CARRY_OUT: dict[ChangeKind, Callable[[Session, Award, AwardChange, Actor, datetime], str]] = {
    ChangeKind.SUPPLEMENT: _supplement,
    ChangeKind.EXTENSION: _extension,
    ChangeKind.TRANSFER: _transfer,
    ChangeKind.CLOSURE: _closure,
}
