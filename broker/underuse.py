"""Awards under watch: their leads are told what runs out, what ends, and what lies unused and goes back.

A chore of the worker's, which any number of workers may do at the same time, and again: each letter is
written once for its event, each step of a reclaim is taken under the books' lock.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlmodel import Session, col, select

from broker import aid, award_letters
from broker.addressees import leads_of, managers
from broker.award_letters import Subject, Words
from broker.bootstrap import Services
from broker.models import Project
from broker.notices import tell, untold
from quotas.amounts import days_later
from quotas.award_life import AwardState
from quotas.balances import NOTHING, Balances, balances_of
from quotas.models import Award, Programme, ReclaimNotice
from quotas.policy import ProgrammePolicy
from quotas.posting import lock_books
from quotas.programmes import policy_of
from quotas.reclaims import announce, carry_out, rule_that_holds
from storage.tables import utcnow

AGAIN_S = 3600
PAGE = 200
REMIND_DAYS = 7
"""Managers are reminded of a justification that nobody decided on, from the due day on."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Watched:
    """A running award with what its letters depend on."""

    subject: Subject
    policy: ProgrammePolicy
    balances: Balances
    leads: Sequence[str]

    @property
    def award(self) -> Award:
        """The award itself."""
        return self.subject.award


def watch_awards(services: Services, now: datetime | None = None) -> int:
    """Write the letters that are due and take the steps of reclaims; return how many awards were looked at."""
    at = now or utcnow()
    count, last = 0, ""
    while page := _page(services, last, at):
        count, last = count + len(page), page[-1].award.id
        _tell_dates(services, page, at)
        for watched in page:
            if rule_that_holds(watched.policy, watched.award, watched.balances, at) is not None:
                _guarded(services, watched.award.id, at, _announce)
    for award_id in _open(services):
        _guarded(services, award_id, at, _carry_out)
    return count


def _page(services: Services, after: str, at: datetime) -> list[Watched]:
    with services.database.read() as session:
        running = select(Award).where(
            col(Award.state) == AwardState.ACTIVE.value,
            col(Award.start_at) <= at,
            col(Award.end_at) > at,
            col(Award.id) > after,
        )
        awards = session.exec(running.order_by(col(Award.id)).limit(PAGE)).all()
        balances = balances_of(session, [award.id for award in awards])
        policies = _policies(session, {award.programme_id for award in awards})
        projects = sorted({award.project_id for award in awards})
        names = dict(session.exec(select(Project.id, Project.name).where(col(Project.id).in_(projects))).all())
        leads = leads_of(session, projects, at)
        session.expunge_all()
        return [
            Watched(
                Subject(award, names[award.project_id]),
                policies[award.programme_id],
                balances.get(award.id, NOTHING),
                leads[award.project_id],
            )
            for award in awards
        ]


def _policies(session: Session, programme_ids: set[str]) -> dict[str, ProgrammePolicy]:
    wanted = select(Programme).where(col(Programme.id).in_(programme_ids))
    return {programme.id: policy_of(programme) for programme in session.exec(wanted)}


def _tell_dates(services: Services, page: Sequence[Watched], at: datetime) -> None:
    """Write what a page's leads should know of thresholds and ends; nearly always it stands already."""
    letters = [(event, watched.leads, words) for watched in page for event, words in _letters(watched, at)]
    with services.database.read() as session:
        new = untold(session, [(event, person) for event, people, _ in letters for person in people])
    if not new:
        return
    with services.database.write() as session:
        for event, people, (subject, text) in letters:
            tell(session, event, [person for person in people if (event, person) in new], subject, text)


def _letters(watched: Watched, at: datetime) -> Iterator[tuple[str, Words]]:
    """Yield the events of an award whose moment has come; an event's name says what it depends on."""
    award, balances, policy = watched.award, watched.balances, watched.policy
    total = balances.total
    reached = [share for share in policy.warn_at_thousandths if total > 0 and balances.consumed * 1000 >= share * total]
    if reached:  # the highest alone: who jumped over several is told once
        words = award_letters.spent(watched.subject, balances, reached[-1])
        yield f"award-spent/{award.id}/{total}/{reached[-1]}", words
    if at >= days_later(award.end_at, -policy.expiring_days):
        words = award_letters.ending(watched.subject, balances, policy.export_days)
        yield f"award-ends/{award.id}/{award.end_at:%Y%m%d%H%M}", words


def _open(services: Services) -> list[str]:
    with services.database.read() as session:
        wanted = select(ReclaimNotice.award_id).where(col(ReclaimNotice.ended_at).is_(None))
        return list(session.exec(wanted.order_by(col(ReclaimNotice.due_at))).all())


def _guarded(services: Services, award_id: str, at: datetime, act: Callable[[Session, str, datetime], None]) -> None:
    """Take one award's step in a transaction of its own; one that fails leaves the others alone."""
    try:
        with services.database.write() as session:
            act(session, award_id, at)
    except Exception as error:
        log.exception("underuse-fault", award=award_id, step=act.__name__, error=repr(error))


def _announce(session: Session, award_id: str, at: datetime) -> None:
    lock_books(session)
    award = session.get_one(Award, award_id)
    policy = policy_of(session.get_one(Programme, award.programme_id))
    notice = announce(session, award, policy, balances_of(session, [award_id])[award_id], at)
    if notice is not None:
        subject = subject_of(session, award)
        _tell(session, notice, "announced", award_letters.announced(subject, notice), to_managers=True, at=at)


def _carry_out(session: Session, award_id: str, at: datetime) -> None:
    notice = carry_out(session, award_id, at)
    if notice is not None:
        award = session.get_one(Award, award_id)
        if notice.reclaimed_credits:
            aid.take_back(session, award, notice.reclaimed_credits, notice.id, at)
        subject = subject_of(session, award)
        _tell(session, notice, "ended", award_letters.ended(subject, notice), to_managers=True, at=at)
        return
    waiting = session.exec(
        select(ReclaimNotice).where(
            col(ReclaimNotice.award_id) == award_id,
            col(ReclaimNotice.ended_at).is_(None),
            col(ReclaimNotice.due_at) <= at,
        )
    ).one_or_none()
    if waiting is not None:
        remind(session, waiting, at)


def remind(session: Session, notice: ReclaimNotice, at: datetime) -> None:
    """Tell the managers on the due day, and each week after, that a justification still waits for them."""
    subject = subject_of(session, session.get_one(Award, notice.award_id))
    week = (at - notice.due_at).days // REMIND_DAYS
    tell(session, f"reclaim-reminder/{notice.id}/{week}", managers(session), *award_letters.justified(subject, notice))


def tell_justified(session: Session, notice: ReclaimNotice) -> None:
    """Tell the managers that a justification waits for them; one that is put in another's place is told again."""
    subject = subject_of(session, session.get_one(Award, notice.award_id))
    event = f"reclaim-justified/{notice.id}/{notice.justified_at:%Y%m%d%H%M%S%f}"
    tell(session, event, managers(session), *award_letters.justified(subject, notice))


def tell_decided(session: Session, notice: ReclaimNotice, at: datetime) -> None:
    """Tell the leads what was decided on their justification."""
    subject = subject_of(session, session.get_one(Award, notice.award_id))
    _tell(session, notice, "decided", award_letters.decided(subject, notice), to_managers=False, at=at)


def subject_of(session: Session, award: Award) -> Subject:
    """Return an award with its project's name."""
    return Subject(award, session.get_one(Project, award.project_id).name)


def _tell(session: Session, notice: ReclaimNotice, what: str, words: Words, *, to_managers: bool, at: datetime) -> None:
    project_id = session.get_one(Award, notice.award_id).project_id
    people = leads_of(session, [project_id], at)[project_id]
    tell(session, f"reclaim-{what}/{notice.id}", people + (managers(session) if to_managers else []), *words)
