"""Who is told: the leads of a project, the Region's managers."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlmodel import Session, col

from broker.memberships import memberships, valid_at
from broker.models import Person


def leads_of(session: Session, project_ids: Sequence[str], at: datetime) -> dict[str, list[str]]:
    """Return the ids of those who lead each project at a moment; the managers' where nobody does."""
    wanted = select(memberships.c.project_id, memberships.c.person_id).where(
        memberships.c.project_id.in_(project_ids), memberships.c.role == "lead", valid_at(at)
    )
    found: dict[str, list[str]] = {}
    for project_id, person_id in session.execute(wanted):
        found.setdefault(project_id, []).append(person_id)
    orphans = [id_ for id_ in project_ids if id_ not in found]
    return {**found, **dict.fromkeys(orphans, managers(session) if orphans else [])}


def managers(session: Session) -> list[str]:
    """Return the ids of the Region's managers."""
    return [id_ for id_, roles in session.execute(select(col(Person.id), col(Person.roles))) if "manager" in roles]
