"""The life of an award until it is granted: requested, reviewed, then granted, refused or withdrawn.

Every step locks the books first, so that two people who decide at one moment decide one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlmodel import Session, col, select

from quotas import approvals
from quotas.amounts import PARIS, day_start, hours_text, period
from quotas.award_life import GRANTED, AwardState, check_move
from quotas.errors import AwardUnknown
from quotas.ledger import Posting, open_accounts
from quotas.models import Award, AwardEvent, Programme
from quotas.policy import AwardAsked, ProgrammePolicy, refusals
from quotas.posting import lock_books, post_all
from quotas.programmes import award_movement, budget_for, days_text, fund_award, policy_of
from storage.tables import new_id


@dataclass(frozen=True, slots=True)
class Actor:
    """Who takes a step: a person's opaque id, and whether it is a manager of the Region, who may decide."""

    person_id: str
    is_manager: bool


@dataclass(frozen=True, slots=True)
class Terms:
    """What an award is for: an amount between two days in Paris, the last one included."""

    credits: int
    start_on: date
    end_on: date


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose award: a project with its data class, in its programme."""

    project_id: str
    programme: Programme
    confidentiality: str
    nature: str


@dataclass(frozen=True, slots=True)
class Papers:
    """What an award rests on, as far as it is known."""

    purpose: str | None = None
    act_reference: str | None = None
    act_on: date | None = None
    continues_id: str | None = None


def request(session: Session, subject: Subject, terms: Terms, by: Actor, papers: Papers, at: datetime) -> Award:
    """Ask for an award. Where two managers must approve, one who enters it has approved it thereby.

    Raises:
        PolicyRefused: the programme's policy does not allow it.
        NoBudget: the programme has no budget for the day on which it would begin.
    """
    lock_books(session)
    check_policy(session, subject, terms)
    start_at, end_at = period(terms.start_on, terms.end_on)
    award = Award(
        id=new_id("awd"),
        project_id=subject.project_id,
        programme_id=subject.programme.id,
        budget_id=budget_for(session, subject.programme.id, start_at).id,
        state=AwardState.REQUESTED.value,
        requested_credits=terms.credits,
        proposed_credits=terms.credits,
        start_at=start_at,
        end_at=end_at,
        purpose=papers.purpose,
        act_reference=papers.act_reference,
        act_on=papers.act_on,
        continues_id=papers.continues_id,
        requested_by=by.person_id,
        requested_at=at,
        created_at=at,
    )
    session.add(award)
    session.flush()
    asked = f"{terms_text(award)} asked for"
    note(session, award.id, "requested", f"{asked}: {papers.purpose}" if papers.purpose else asked, by, at)
    if by.is_manager and needs_two(policy_of(subject.programme), terms.credits):
        approvals.approve(session, award.id, by.person_id, at)
    return award


def grant(session: Session, subject: Subject, terms: Terms, by: Actor, papers: Papers, at: datetime) -> Award:
    """Request and approve in one step; where two managers must approve, the second is still to come.

    Raises:
        PolicyRefused, NoBudget, ProgrammeTooSmall: nothing was written.
    """
    award = request(session, subject, terms, by, papers, at)
    if by.person_id in approvals.approvers(session, award.id):
        return _wait_for_another(session, award, policy_of(subject.programme), by, at)
    return approve(session, award.id, subject, by, at)


def grant_many(session: Session, wanted: Sequence[tuple[Subject, Terms]], by: Actor, at: datetime) -> list[Award]:
    """Grant awards together whose rules the caller has checked under the books' lock, in one group of postings.

    Raises:
        NoBudget, ProgrammeTooSmall: one of them cannot be funded; the caller's transaction must not stand.
    """
    lock_books(session)
    made = [_granted_at_once(session, subject, terms, by, at) for subject, terms in wanted]
    session.add_all(made)
    session.flush()
    open_accounts(session, [award.id for award in made])
    postings = [Posting(movements=(award_movement(award),)) for award in made]
    post_all(session.connection(), postings, at)
    for award in made:
        session.add(
            AwardEvent(
                award_id=award.id, at=at, person_id=by.person_id, kind="granted", text=f"{terms_text(award)} granted"
            )
        )
    session.flush()
    return made


def comment(session: Session, award_id: str, text: str, by: Actor, at: datetime) -> Award:
    """Say something about an award; one that was only requested is in review from then."""
    award = locked(session, award_id)
    if AwardState(award.state) is AwardState.REQUESTED:
        award.state = AwardState.IN_REVIEW.value
    note(session, award.id, "commented", text, by, at)
    return award


def approve(
    session: Session,
    award_id: str,
    subject: Subject,
    by: Actor,
    at: datetime,
    *,
    terms: Terms | None = None,
    papers: Papers | None = None,
) -> Award:
    """Approve an award, as it stands under review or on other terms; once enough did, it is granted.

    On other terms than those under review, what others approved before counts no more: they approved
    something else. The credits move from the programme's budget to the award in one posting.

    Raises:
        AwardStateWrong: it is decided already.
        ApprovedAlready: two managers must approve, and this one did.
        PolicyRefused, NoBudget, ProgrammeTooSmall: the award may not, or cannot, be granted so.
    """
    award = locked(session, award_id)
    check_move(award.id, AwardState(award.state), AwardState.ACTIVE)
    wanted = terms or terms_of(award)
    check_policy(session, subject, wanted)
    if wanted != terms_of(award):
        approvals.forget(session, award.id)
        _propose(award, wanted)
    if papers is not None:
        award.act_reference = papers.act_reference or award.act_reference
        award.act_on = papers.act_on or award.act_on
    policy = policy_of(subject.programme)
    if not enough_approve(session, award.id, policy, award.proposed_credits, by, at):
        return _wait_for_another(session, award, policy, by, at)
    _fund(session, award, subject.programme, by, at)
    return award


def refuse(session: Session, award_id: str, reason: str, by: Actor, at: datetime) -> Award:
    """Refuse a request, with a reason.

    Raises:
        AwardStateWrong: it is decided already.
    """
    return _end_request(session, award_id, AwardState.REFUSED, reason, by, at)


def withdraw(session: Session, award_id: str, reason: str, by: Actor, at: datetime) -> Award:
    """Take a request back.

    Raises:
        AwardStateWrong: it is decided already.
    """
    return _end_request(session, award_id, AwardState.WITHDRAWN, reason, by, at)


def locked(session: Session, award_id: str) -> Award:
    """Return an award as it stands, once nobody else can change it.

    Raises:
        AwardUnknown: there is none of this id.
    """
    lock_books(session)
    award = session.get(Award, award_id, populate_existing=True)
    if award is None:
        raise AwardUnknown(f"no award {award_id}", "`idf-compute award list` shows those that there are")
    return award


def check_policy(session: Session, subject: Subject, terms: Terms) -> None:
    """Refuse an award that its programme's policy does not allow.

    Raises:
        PolicyRefused: the rule, and what would pass.
    """
    asked = AwardAsked(terms.credits, terms.start_on, terms.end_on, subject.confidentiality, subject.nature)
    others = projects_begun_in(session, subject.programme.id, terms.start_on.year) - {subject.project_id}
    refusals(policy_of(subject.programme), asked, len(others))


def projects_begun_in(session: Session, programme_id: str, year: int) -> set[str]:
    """Return the ids of projects with a granted award of a programme that begins in a year in Paris.

    Projects and not awards are counted: a project that goes on with a second award is no second company of
    the cohort.
    """
    wanted = select(Award.project_id).where(
        col(Award.programme_id) == programme_id,
        col(Award.state).in_(GRANTED),
        col(Award.start_at) >= day_start(date(year, 1, 1)),
        col(Award.start_at) < day_start(date(year + 1, 1, 1)),
    )
    return set(session.exec(wanted))


def needs_two(policy: ProgrammePolicy, amount_credits: int) -> bool:
    """Say whether two managers must approve so much."""
    above = policy.four_eyes_above_credits
    return above is not None and amount_credits > above


def enough_approve(
    session: Session, subject_id: str, policy: ProgrammePolicy, amount_credits: int, by: Actor, at: datetime
) -> bool:
    """Count one more approval, and say whether it is enough for so much.

    Raises:
        ApprovedAlready: two managers must approve, and this one did.
    """
    if not needs_two(policy, amount_credits):
        if by.person_id not in approvals.approvers(session, subject_id):
            approvals.approve(session, subject_id, by.person_id, at)
        return True
    return approvals.approve(session, subject_id, by.person_id, at) > 1


def terms_of(award: Award) -> Terms:
    """Return what an award is for, or would be."""
    last = award.end_at - timedelta(microseconds=1)
    return Terms(award.proposed_credits, award.start_at.astimezone(PARIS).date(), last.astimezone(PARIS).date())


def terms_text(award: Award) -> str:
    """Word an award's terms: `500 h, 2027-01-01 to 2027-06-30`."""
    return f"{hours_text(award.proposed_credits)}, {days_text(award.start_at, award.end_at)}"


def note(session: Session, award_id: str, kind: str, text: str, by: Actor | None, at: datetime) -> None:
    """Write one step of an award's story; `by` is None where a date took it."""
    session.add(AwardEvent(award_id=award_id, at=at, person_id=by.person_id if by else None, kind=kind, text=text))
    session.flush()


def _granted_at_once(session: Session, subject: Subject, terms: Terms, by: Actor, at: datetime) -> Award:
    start_at, end_at = period(terms.start_on, terms.end_on)
    return Award(
        id=new_id("awd"),
        project_id=subject.project_id,
        programme_id=subject.programme.id,
        budget_id=budget_for(session, subject.programme.id, start_at).id,
        state=AwardState.ACTIVE.value,
        requested_credits=terms.credits,
        proposed_credits=terms.credits,
        awarded_credits=terms.credits,
        start_at=start_at,
        end_at=end_at,
        requested_by=by.person_id,
        requested_at=at,
        granted_at=at,
        created_at=at,
    )


def _propose(award: Award, terms: Terms) -> None:
    award.proposed_credits = terms.credits
    award.start_at, award.end_at = period(terms.start_on, terms.end_on)


def _wait_for_another(session: Session, award: Award, policy: ProgrammePolicy, by: Actor, at: datetime) -> Award:
    award.state = AwardState.IN_REVIEW.value
    above = hours_text(policy.four_eyes_above_credits or 0)
    note(
        session,
        award.id,
        "approved",
        f"{terms_text(award)} approved; above {above} a second manager must approve too",
        by,
        at,
    )
    return award


def _fund(session: Session, award: Award, programme: Programme, by: Actor, at: datetime) -> None:
    award.budget_id = budget_for(session, programme.id, award.start_at).id
    fund_award(session, award, programme)
    award.state = AwardState.ACTIVE.value
    award.awarded_credits = award.proposed_credits
    award.granted_at = at
    asked = (
        "" if award.requested_credits == award.awarded_credits else f" of {hours_text(award.requested_credits)} asked"
    )
    note(session, award.id, "granted", f"{terms_text(award)} granted{asked}", by, at)


def _end_request(session: Session, award_id: str, after: AwardState, reason: str, by: Actor, at: datetime) -> Award:
    award = locked(session, award_id)
    check_move(award.id, AwardState(award.state), after)
    award.state = after.value
    note(session, award.id, after.value, reason, by, at)
    return award
