"""Taking accounts back: from projects whose last award is closed, then closed, wiped and free to be given again.

A chore, which any worker may do at any time and again. Access goes first, at once; what lies in the account stays
while an award is asked for, which may continue the last one, and is wiped when none is.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, Table, delete, or_, select, update
from sqlmodel import col

from adapters.errors import SiteError
from broker.accounts import accounts, lease, lock_site, no_lease, note, note_trouble, same
from broker.bootstrap import Services
from broker.models import Site
from broker.moves import jobs
from broker.schemas import SiteIn
from quotas.award_life import UNDECIDED, AwardState
from quotas.models import Award
from storage.tables import utcnow

AT_ONCE_MAX = 8
"""Accounts that one turn closes or wipes: each may take minutes."""
RUNS = (AwardState.ACTIVE.value, AwardState.EXPIRING.value)
ASKED = tuple(sorted(state.value for state in UNDECIDED))

_awards: Table = Award.__table__  # type: ignore[attr-defined]


def take_back_all(services: Services) -> int:
    """Take accounts back at every site; return how many became free."""
    with services.database.read() as session:
        sites = session.execute(select(col(Site.id), col(Site.settings))).all()
    return sum(_take_back(services, id_, SiteIn.model_validate(settings)) for id_, settings in sites)


def _take_back(services: Services, site_id: str, settings: SiteIn) -> int:
    if settings.isolation == "shared":
        return 0
    mark_left(services, site_id, utcnow())
    freed = 0
    for row in _to_close(services, site_id, utcnow()):
        if lease(services, row, "close"):
            freed += _clear(services, row, settings)
    if freed:
        services.bell.ring()
    return freed


def mark_left(services: Services, site_id: str, now: datetime) -> int:
    """Mark the accounts of projects that need them no more; return how many. No job is sent as them from now on."""
    with services.database.write() as session:
        lock_site(session, site_id)
        needed = or_(_awards_in(*RUNS, *ASKED), _jobs_there())
        left = (
            update(accounts)
            .where(accounts.c.site_id == site_id, accounts.c.left_at.is_(None), ~needed)
            .where(no_lease(now))
            .values(left_at=now)
        )
        return int(session.execute(left).rowcount)  # type: ignore[attr-defined]


def _awards_in(*states: str) -> Any:
    return (
        select(_awards.c.id)
        .where(_awards.c.project_id == accounts.c.project_id, _awards.c.state.in_(states))
        .correlate(accounts)
        .exists()
    )


def _jobs_there() -> Any:
    return (
        select(jobs.c.id)
        .where(jobs.c.site_id == accounts.c.site_id, jobs.c.project_id == accounts.c.project_id)
        .where(jobs.c.settled_at.is_(None))
        .correlate(accounts)
        .exists()
    )


def _to_close(services: Services, site_id: str, now: datetime) -> list[Row[Any]]:
    """Return accounts that were left, and open ones whose project has no award to run on any more."""
    idle = accounts.c.opened_at.is_not(None) & ~_awards_in(*RUNS) & ~_jobs_there()
    wanted = (
        select(*accounts.c)
        .where(accounts.c.site_id == site_id, or_(accounts.c.left_at.is_not(None), idle))
        .where(no_lease(now))
        .order_by(accounts.c.left_at, accounts.c.account)
        .limit(AT_ONCE_MAX)
    )
    with services.database.read() as session:
        return list(session.execute(wanted).all())


def _clear(services: Services, row: Row[Any], settings: SiteIn) -> bool:
    """Close an account, and wipe it if it was left; True when it is free to be given again."""
    upkeep, step = services.upkeeps.at(row.site_id, settings), "close"
    try:
        note(services, row, opened_at=None, gpu_minutes_max=None, limited_at=None)  # from here on, nothing is sent
        upkeep.close_account(row.account)
        if row.left_at is not None:
            step = "wipe"
            upkeep.wipe(row.account)
    except SiteError as error:
        note_trouble(services, row, error, settings.name, step)
        return False
    if row.left_at is None:
        note(services, row, trouble=None, lease_until=None)
        return False
    with services.database.write() as session:
        lock_site(session, row.site_id)
        session.execute(delete(accounts).where(*same(row)))
    return True
