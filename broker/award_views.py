"""Awards as they are shown: names for ids, balances, dates, notices."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from broker.models import Person, Project
from broker.schemas import (
    AwardChangeOut,
    AwardDetail,
    AwardEventOut,
    AwardOut,
    ClassHours,
    OutcomeOut,
    StorageOut,
)
from quotas.approvals import approvers, approvers_of
from quotas.award_life import GRANTED, AwardState, ChangeKind, storage_dates, storage_phase
from quotas.award_notices import notices_of
from quotas.balances import NOTHING, Balances, balances_of, seconds_by_class
from quotas.models import Award, AwardChange, AwardEvent, AwardOutcome, Programme
from quotas.policy import ProgrammePolicy
from quotas.programmes import policy_of, weights
from storage.tables import utcnow

EVENTS_MAX = 1000
"""Of one award's story in one answer, the newest; `/events` pages through all."""


def awards_out(session: Session, awards: Sequence[Award]) -> list[AwardOut]:
    """Show awards."""
    now = utcnow()
    classes = weights(session.connection(), now)
    balances = balances_of(session, [award.id for award in awards])
    people = names(session, [award.requested_by for award in awards])
    programmes = _programmes(session, awards)
    return [
        _award_out(
            session, award, balances.get(award.id, NOTHING), classes, people, programmes[award.programme_id], now
        )
        for award in awards
    ]


def award_detail(session: Session, award: Award) -> AwardDetail:
    """Show an award with its whole story."""
    wanted = select(AwardEvent).where(col(AwardEvent.award_id) == award.id).order_by(col(AwardEvent.id).desc())
    events = session.exec(wanted.limit(EVENTS_MAX)).all()
    touching = (col(AwardChange.award_id) == award.id) | (col(AwardChange.other_award_id) == award.id)
    changes = session.exec(select(AwardChange).where(touching).order_by(col(AwardChange.id)).limit(EVENTS_MAX)).all()
    approved = approvers(session, award.id)
    people = names(session, approved)
    outcome = session.get(AwardOutcome, award.id)
    return AwardDetail(
        **awards_out(session, [award])[0].model_dump(),
        approved_by=[people.get(id_, id_) for id_ in approved],
        events=events_out(session, events[::-1]),
        changes=changes_out(session, changes),
        outcome=_outcome_out(session, outcome) if outcome is not None else None,
    )


def events_out(session: Session, events: Sequence[AwardEvent]) -> list[AwardEventOut]:
    """Show steps of awards."""
    people = names(session, [event.person_id for event in events])
    return [
        AwardEventOut(
            id=event.id or 0,
            at=event.at,
            person=people.get(event.person_id) if event.person_id else None,
            kind=event.kind,
            text=event.text,
        )
        for event in events
    ]


def changes_out(session: Session, changes: Sequence[AwardChange]) -> list[AwardChangeOut]:
    """Show changes of awards."""
    approved = approvers_of(session, [change.id for change in changes])
    people = names(session, [c.asked_by for c in changes] + [id_ for ids in approved.values() for id_ in ids])
    projects = {award.id: award.project_id for award in _awards(session, changes)}
    return [
        AwardChangeOut(
            **change.model_dump(exclude={"award_id", "other_award_id", "asked_by"}),
            award=change.award_id,
            project=session.get_one(Project, projects[change.award_id]).name,
            other_award=change.other_award_id,
            asked_by=people.get(change.asked_by),
            approved_by=[people.get(id_, id_) for id_ in approved.get(change.id, [])],
            notices=_change_notices(change),
        )
        for change in changes
    ]


def names(session: Session, person_ids: Iterable[str | None]) -> dict[str, str]:
    """Return people's names by their ids."""
    known = {id_ for id_ in person_ids if id_ is not None}
    wanted = select(Person.id, Person.name).where(col(Person.id).in_(known))
    return dict(session.exec(wanted).all())


def _programmes(session: Session, awards: Sequence[Award]) -> dict[str, tuple[str, ProgrammePolicy]]:
    wanted = select(Programme).where(col(Programme.id).in_({award.programme_id for award in awards}))
    return {programme.id: (programme.name, policy_of(programme)) for programme in session.exec(wanted)}


def _awards(session: Session, changes: Sequence[AwardChange]) -> Sequence[Award]:
    return session.exec(select(Award).where(col(Award.id).in_({change.award_id for change in changes}))).all()


def _award_out(
    session: Session,
    award: Award,
    balances: Balances,
    classes: dict[str, int],
    people: Mapping[str, str],
    programme: tuple[str, ProgrammePolicy],
    now: datetime,
) -> AwardOut:
    name, policy = programme
    state = AwardState(award.state)
    return AwardOut(
        **award.model_dump(include=set(AwardOut.model_fields) - {"requested_by", "state"}),
        project=session.get_one(Project, award.project_id).name,
        programme=name,
        state=state,
        active=state is AwardState.ACTIVE and award.start_at <= now < award.end_at,
        total_credits=balances.total,
        available_credits=balances.available,
        held_credits=balances.held,
        consumed_credits=balances.consumed,
        overrun_credits=balances.overrun,
        classes=[
            ClassHours(gpu_class=kind, weight_thousandths=classes[kind], available_s=seconds)
            for kind, seconds in seconds_by_class(balances.available, classes).items()
        ],
        storage=_storage_out(award, policy, now) if state in GRANTED else None,
        continues=award.continues_id,
        requested_by=people.get(award.requested_by) if award.requested_by else None,
        notices=notices_of(state, award.start_at, award.end_at, policy.expiring_days, policy.export_days, now),
    )


def _storage_out(award: Award, policy: ProgrammePolicy, now: datetime) -> StorageOut:
    dates = storage_dates(award.end_at, policy.export_days)
    return StorageOut(
        phase=storage_phase(award.end_at, policy.export_days, now),
        writable_until=dates.writable_until,
        export_from=dates.export_from,
        export_until=dates.export_until,
    )


def _change_notices(change: AwardChange) -> list[str]:
    if change.kind != ChangeKind.EXTENSION.value:
        return []
    return ["jobs that are submitted already keep the deadline that they were sent with; later ones have the new end"]


def _outcome_out(session: Session, outcome: AwardOutcome) -> OutcomeOut:
    person = names(session, [outcome.person_id]).get(outcome.person_id)
    return OutcomeOut(**outcome.model_dump(exclude={"award_id", "person_id"}), person=person)
