"""Accounts of sites' pools: given to projects that have jobs, opened there, taken back, wiped, and given again.

Life of one: taken (a row) → open (the site lets it run jobs) → left (its project needs it no more) → closed, wiped,
free (no row). A job waits in `held` while its project has none that is open. What gives, sends and takes back does
so under the lock of the site's row, so that no job is ever sent as an account that is being wiped, or is another's.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from sqlalchemy import ColumnElement, Row, Select, Table, func, insert, select, true, update
from sqlmodel import Session, col

from adapters.errors import SiteError, Uncertain
from broker.bootstrap import Services
from broker.lifecycle import JobState
from broker.models import ProjectAccount, Site
from broker.moves import change_jobs, jobs
from broker.schemas import SiteIn
from storage.tables import utcnow

accounts: Table = ProjectAccount.__table__  # type: ignore[attr-defined]
log = structlog.get_logger()

PROJECTS_AT_ONCE_MAX = 100
LEASE = timedelta(minutes=15)
"""Longer than anything that was asked of a site can be under way there: 2 minutes to begin, 4 to wipe, 5 of skew."""
AGAIN = timedelta(seconds=15)
OPEN_AGAIN = timedelta(seconds=30)
"""Opening does no harm when it is done twice, so whoever died in the middle of it holds nobody up for longer."""


def group_of(project_id: str) -> str:
    """Return the name of the Slurm account that stands for a project at every site: opaque, and the same for ever."""
    return f"idf-{project_id}"


def namespace_of(project_id: str) -> str:
    """Return a project's account in a Kubernetes pool: a namespace of its own, which leads back to it."""
    return f"idf-{project_id}"


def lock_site(session: Session, site_id: str) -> SiteIn:
    """Lock a site's row: one at a time gives, sends and takes back there. Return its settings."""
    wanted = select(col(Site.settings)).where(col(Site.id) == site_id).with_for_update()
    return SiteIn.model_validate(session.execute(wanted).scalar_one())


def waits_for_account(site_name: str) -> str:
    """Return what an engineer reads of a job whose project has no account at the site."""
    return f"waits: no account of site {site_name} is free; one is given when another project leaves it"


def give_accounts(session: Session, site_id: str, settings: SiteIn, now: datetime) -> ColumnElement[bool]:
    """Give free accounts to projects whose jobs wait for one, oldest first; tell the others why they wait.

    The caller holds the site's lock. Returns what picks the jobs that have an account, and one that is open.
    """
    if settings.isolation == "shared":
        return jobs.c.account.is_not(None)
    rows = session.execute(select(*accounts.c).where(accounts.c.site_id == site_id)).all()
    own = {row.project_id: row.account for row in rows if row.left_at is None}
    leaving = {row.project_id for row in rows if row.left_at is not None}
    taken = {row.account for row in rows}
    free = [account for account in settings.accounts if account not in taken]
    waiting = session.execute(_waiting(site_id)).all()
    for project_id, _ in waiting:
        is_pool = settings.kind == "k8s"
        if project_id not in own and project_id not in leaving and (free or is_pool):
            own[project_id] = namespace_of(project_id) if is_pool else free.pop(0)
            taken_row = {"site_id": site_id, "account": own[project_id], "project_id": project_id, "taken_at": now}
            session.execute(insert(accounts).values(taken_row))
        if project_id in own:
            _change_waiting(session, site_id, project_id, account=own[project_id], reason=None)
        else:
            _change_waiting(session, site_id, project_id, reason=waits_for_account(settings.name))
    closed = [row for row in rows if row.left_at is None and row.opened_at is None]
    _tell_not_open(session, site_id, settings.name, closed)
    return jobs.c.account.is_not(None) & jobs.c.account.not_in([row.account for row in closed])


def _waiting(site_id: str) -> Select[Any]:
    return (
        select(jobs.c.project_id, func.min(jobs.c.id))
        .where(jobs.c.site_id == site_id, jobs.c.state == JobState.HELD.value, jobs.c.account.is_(None))
        .group_by(jobs.c.project_id)
        .order_by(func.min(jobs.c.id))
        .limit(PROJECTS_AT_ONCE_MAX)
    )


def _change_waiting(session: Session, site_id: str, project_id: str, **values: str | None) -> None:
    """Write into a project's waiting jobs which account they have now, or why they have none."""
    outdated = jobs.c.reason.is_(None) | (jobs.c.reason != values["reason"]) if values["reason"] else true()
    theirs = (jobs.c.site_id == site_id, jobs.c.project_id == project_id, jobs.c.state == JobState.HELD.value)
    session.execute(update(jobs).where(*theirs, jobs.c.account.is_(None), outdated).values(**values))


def _tell_not_open(session: Session, site_id: str, site_name: str, closed: Sequence[Row[Any]]) -> None:
    for row in closed:
        reason = f"waits: its project's account at site {site_name} is not open yet"
        reason = f"{reason}: {row.trouble}"[:1000] if row.trouble else reason
        theirs = (jobs.c.site_id == site_id, jobs.c.account == row.account, jobs.c.state == JobState.HELD.value)
        outdated = jobs.c.reason.is_(None) | (jobs.c.reason != reason)
        session.execute(update(jobs).where(*theirs, outdated).values(reason=reason))


def still_theirs(session: Session, settings: SiteIn, site_id: str, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Keep the jobs whose account is their project's at this moment; the others wait for one again.

    The caller holds the site's lock. A job may have been taken in while its project's account was being left.
    """
    if settings.isolation == "shared":
        return list(rows)
    wanted = select(accounts.c.account, accounts.c.project_id)
    open_ = wanted.where(accounts.c.site_id == site_id, accounts.c.left_at.is_(None), accounts.c.opened_at.is_not(None))
    own = {(account, project_id) for account, project_id in session.execute(open_)}
    lost = [row.id for row in rows if (row.account, row.project_id) not in own]
    change_jobs(session, [(id_, {"account": None, "reason": waits_for_account(settings.name)}) for id_ in lost])
    return [row for row in rows if (row.account, row.project_id) in own]


def owns(session: Session, site_id: str, settings: SiteIn, account: str | None, project_id: str) -> bool:
    """Say whether an account still is a project's: what lies there now may be another's."""
    if settings.isolation == "shared":
        return True
    wanted = select(accounts.c.account).where(
        accounts.c.site_id == site_id, accounts.c.account == account, accounts.c.project_id == project_id
    )
    return session.execute(wanted).first() is not None


def open_accounts(services: Services, site_id: str, settings: SiteIn) -> int:
    """Open the accounts of projects that have jobs to send; return how many were opened. No transaction meanwhile.

    Those that wait for an account are given one first, so that it is open at this very turn.
    """
    if settings.isolation == "shared":
        return 0
    with services.database.read() as session:
        waiting = session.execute(_waiting(site_id)).first() is not None
    if waiting:
        with services.database.write() as session:
            give_accounts(session, site_id, lock_site(session, site_id), utcnow())
    to_send = (
        select(jobs.c.id)
        .where(jobs.c.site_id == site_id, jobs.c.state == JobState.HELD.value, jobs.c.account == accounts.c.account)
        .where(jobs.c.project_id == accounts.c.project_id)
    )
    wanted = select(*accounts.c).where(
        accounts.c.site_id == site_id, accounts.c.opened_at.is_(None), accounts.c.left_at.is_(None), to_send.exists()
    )
    with services.database.read() as session:
        rows = session.execute(wanted.where(_may_open(utcnow()))).all()
    opened = 0
    for row in rows:
        if lease(services, row, "open"):
            opened += _open(services, row, settings)
    return opened


def _open(services: Services, row: Row[Any], settings: SiteIn) -> bool:
    """Ask the site. While an earlier try may still be under way its lease stays: nothing is closed before its end."""
    tried_before = row.lease_until is not None and row.lease_until > utcnow()
    try:
        services.upkeeps.at(row.site_id, settings).open_account(row.account, group_of(row.project_id))
    except SiteError as error:
        note_trouble(services, row, error, settings.name, "open", keep_lease=tried_before)
        return False
    rest = {} if tried_before else {"lease_until": None, "lease_step": None}
    note(services, row, opened_at=utcnow(), trouble=None, **rest)
    return True


def lease(services: Services, row: Row[Any], step: Literal["open", "close"]) -> bool:
    """Take an account in hand, so that no two workers ask the site for different things of it; False when one does."""
    now = utcnow()
    free = _may_open(now) if step == "open" else no_lease(now)
    with services.database.write() as session:
        taken = update(accounts).where(*same(row), free).values(lease_until=now + LEASE, lease_step=step)
        return session.execute(taken).rowcount == 1  # type: ignore[attr-defined, no-any-return]


def _may_open(now: datetime) -> ColumnElement[bool]:
    another_try = (accounts.c.lease_step == "open") & (accounts.c.lease_until <= now + LEASE - OPEN_AGAIN)
    return no_lease(now) | another_try


def no_lease(now: datetime) -> ColumnElement[bool]:
    """Return what picks the accounts that nobody has in hand."""
    return accounts.c.lease_until.is_(None) | (accounts.c.lease_until <= now)


def note_trouble(
    services: Services, row: Row[Any], error: SiteError, site_name: str, step: str, *, keep_lease: bool = False
) -> None:
    """Keep why a site did not do it. What may still be under way there keeps its lease."""
    log.warning("account-trouble", site=site_name, account=row.account, step=step, code=error.code, reason=error.reason)
    again = {} if keep_lease or isinstance(error, Uncertain) else {"lease_until": utcnow() + AGAIN, "lease_step": None}
    note(services, row, trouble=error.reason[:1000], **again)


def note(services: Services, row: Row[Any], **values: object) -> None:
    """Write what became of an account, if it still is the holding that was read."""
    with services.database.write() as session:
        session.execute(update(accounts).where(*same(row)).values(**values))


def same(row: Row[Any]) -> tuple[ColumnElement[bool], ...]:
    """Return what picks this very holding of an account: given again, it is another one."""
    return (
        accounts.c.site_id == row.site_id,
        accounts.c.account == row.account,
        accounts.c.project_id == row.project_id,
        accounts.c.taken_at == row.taken_at,
    )
