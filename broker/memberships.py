"""Who belongs to which project, as what, at this moment; and how somebody comes and goes.

What each role may (docs/operating.md has the same table in words):

| | lead | member | viewer | coach |
| submit, plan, cancel | yes | yes | no | no |
| read jobs whole, logs | yes | yes | yes | no |
| see jobs' states and times, charges, balances, members | yes | yes | yes | yes |
| let others join and leave, but leads | yes | no | no | no |
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, or_, select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from broker.errors import BadRequest, MembershipClash, NotFound
from broker.models import Membership, Person, Project
from quotas.amounts import PARIS, day_start, period
from storage.tables import new_id, utcnow

SUBMITTERS = ("lead", "member")
LOG_READERS = ("lead", "member", "viewer")

memberships: Table = Membership.__table__  # type: ignore[attr-defined]


def valid_at(at: Any) -> ColumnElement[bool]:
    """Return the condition that a membership holds at a moment, given as such or as a bound parameter."""
    ends = memberships.c.end_at
    return and_(memberships.c.start_at <= at, or_(ends.is_(None), ends > at))


def roles_of(connection: Connection, person_id: str, at: datetime) -> dict[str, str]:
    """Return a person's role in each project that they belong to at a moment, by the project's id."""
    wanted = select(memberships.c.project_id, memberships.c.role).where(memberships.c.person_id == person_id)
    return {row.project_id: row.role for row in connection.execute(wanted.where(valid_at(at)))}


def role_in(connection: Connection, person_id: str, project_id: str, at: datetime) -> str | None:
    """Return a person's role in a project at a moment, None for somebody who does not belong to it."""
    wanted = select(memberships.c.role).where(
        memberships.c.person_id == person_id, memberships.c.project_id == project_id, valid_at(at)
    )
    role: str | None = connection.execute(wanted).scalar_one_or_none()
    return role


def members_of(session: Session, project_ids: Sequence[str], at: datetime) -> dict[str, list[str]]:
    """Return the names of those who belong to each project at a moment."""
    wanted = (
        select(memberships.c.project_id, col(Person.name))
        .join(Person, col(Person.id) == memberships.c.person_id)
        .where(memberships.c.project_id.in_(project_ids), valid_at(at))
        .order_by(col(Person.name))
    )
    found: dict[str, list[str]] = {id_: [] for id_ in project_ids}
    for project_id, name in session.execute(wanted):
        found[project_id].append(name)
    return found


def join(
    session: Session, project: Project, person: Person, role: str, days: tuple[date | None, date | None]
) -> Membership:
    """Let a person join a project from a day to a day, the last included; without days from now on, without end.

    The first day may be today, which means from now on. Who has that very role for these days keeps it as it is.

    Raises:
        BadRequest: the first day is over, or the last lies before the first.
        MembershipClash: the person belongs to the project for a part of that time already.
    """
    _lock(session, project)
    now = utcnow()
    start_at, end_at = _span(days, now)
    for row in _rows(session, project, person):
        if not _overlap(row, start_at, end_at):
            continue
        if row.role == role and days == (None, None) and row.start_at <= now and row.end_at is None:
            return row
        raise MembershipClash(
            f"{person.name} is {row.role} of {project.name} {_days_text(row)} already",
            f"end that first with `idf-compute project leave {project.name} {person.name}`, or choose other days",
        )
    row = Membership(
        id=new_id("mbr"), person_id=person.id, project_id=project.id, role=role, start_at=start_at, end_at=end_at
    )
    session.add(row)
    session.flush()
    return row


def leave(session: Session, project: Project, person: Person, on: date | None) -> Membership:
    """End a person's membership: now, or with a day that is today or later, included.

    One that has not begun is taken back when no day is given.

    Raises:
        NotFound: the person neither belongs to the project nor is going to.
        BadRequest: the day is over, or the membership ends before it.
    """
    _lock(session, project)
    now = utcnow()
    row = next((row for row in _rows(session, project, person) if row.end_at is None or row.end_at > now), None)
    if row is None:
        raise NotFound(
            f"{person.name} does not belong to {project.name}", f"`idf-compute project members {project.name}` tells"
        )
    row.end_at = max(row.start_at, now) if on is None else _end_with(row, on, now)
    session.add(row)
    session.flush()
    return row


def _lock(session: Session, project: Project) -> None:
    """Let nobody else come or go at this moment, so that no two rows overlap."""
    session.execute(select(col(Project.id)).where(col(Project.id) == project.id).with_for_update())


def _rows(session: Session, project: Project, person: Person) -> Sequence[Membership]:
    wanted = select_rows(Membership).where(
        col(Membership.project_id) == project.id, col(Membership.person_id) == person.id
    )
    return session.exec(wanted.order_by(col(Membership.start_at))).all()


def _span(days: tuple[date | None, date | None], now: datetime) -> tuple[datetime, datetime | None]:
    first, last = days
    today = now.astimezone(PARIS).date()
    if first is not None and first < today:
        raise BadRequest(f"the first day {first} is over: nobody joins in the past", f"{today} or a later day")
    if last is not None and last < (first or today):
        raise BadRequest(f"the last day {last} lies before the first", f"{first or today} or a later day")
    start_at = now if first in (None, today) else day_start(first)
    return start_at, None if last is None else period(last, last)[1]


def _end_with(row: Membership, on: date, now: datetime) -> datetime:
    today = now.astimezone(PARIS).date()
    if on < today:
        raise BadRequest(f"the day {on} is over: what a member saw until now is seen", f"{today} or a later day")
    _, end_at = period(on, on)
    if end_at <= row.start_at or (row.end_at is not None and end_at > row.end_at):
        raise BadRequest(f"the membership lasts {_days_text(row)}, without {on}", "a day within it")
    return end_at


def _overlap(row: Membership, start_at: datetime, end_at: datetime | None) -> bool:
    if row.start_at == row.end_at:
        return False  # taken back
    return (end_at is None or row.start_at < end_at) and (row.end_at is None or start_at < row.end_at)


def _days_text(row: Membership) -> str:
    first = row.start_at.astimezone(PARIS).date()
    return f"from {first} on" if row.end_at is None else f"from {first} to {_last_day(row.end_at)}"


def _last_day(end_at: datetime) -> date:
    """Return the day in Paris that a membership ends in: the last whole one, or the one that it was broken off in."""
    return (end_at - timedelta(microseconds=1)).astimezone(PARIS).date()
