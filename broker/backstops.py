"""The second line: how many GPU-minutes a site's own Slurm lets a project use, written one way and never read back.

It binds who gets past the broker. It must never stop what an award can pay, so it is always what was used there,
and what is held there, and the site's share of what is left: a project at three sites that bypasses the broker at
all of them gets what is left once, not three times. Written by a chore, so it may be a minute old; a job above an
old limit waits that long in the site's queue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Row, Table, cast, func, select
from sqlmodel import Session, col

from accounting.models import UsageRecord
from broker.accounts import accounts, group_of, note
from broker.bootstrap import Services
from broker.models import Site
from broker.moves import jobs
from broker.schemas import SiteIn
from quotas.award_life import AwardState
from quotas.models import Account, Award
from quotas.programmes import weights
from storage.tables import BIG, utcnow

_awards: Table = Award.__table__  # type: ignore[attr-defined]
_usage: Table = UsageRecord.__table__  # type: ignore[attr-defined]
_ledger_accounts: Table = Account.__table__  # type: ignore[attr-defined]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stand:
    """What the books know of a project, as far as one site is concerned."""

    used_gpu_s: int
    """By jobs that were charged there."""
    held_gpu_s: int
    """By jobs that are there or on their way, for as long as they may run."""
    left_credits: int
    """Available in all of its awards that can pay."""
    sites: int
    """Where it has an open account."""
    weight_thousandths: int
    """Of the site's lightest GPU class: what is left buys the most GPU time of that one."""


def gpu_minutes(stand: Stand) -> int:
    """Return the limit in whole GPU-minutes, rounded up.

    A credit is one GPU for one second, times the weight in thousandths (docs/rules.md).
    """
    share_gpu_s = -(-stand.left_credits // (stand.sites * stand.weight_thousandths))
    return -(-(stand.used_gpu_s + stand.held_gpu_s + share_gpu_s) // 60)


def limit_all(services: Services) -> int:
    """Write every limit that changed to its site; return how many were written."""
    with services.database.read() as session:
        sites = session.execute(select(col(Site.id), col(Site.settings))).all()
    return sum(_limit(services, id_, SiteIn.model_validate(settings)) for id_, settings in sites)


def _limit(services: Services, site_id: str, settings: SiteIn) -> int:
    if settings.isolation == "shared":
        return 0
    with services.database.read() as session:
        changed = _changed(session, site_id, settings)
    if not changed:
        return 0
    wanted = {group_of(row.project_id): minutes for row, minutes in changed}
    failed = services.upkeeps.at(site_id, settings).limit_groups(wanted)
    for row, minutes in changed:
        error = failed.get(group_of(row.project_id))
        if error is None:
            note(services, row, gpu_minutes_max=minutes, limited_at=utcnow())
        else:
            log.warning("limit-trouble", site=settings.name, account=row.account, reason=error.reason)
    return len(changed) - len(failed)


def _changed(session: Session, site_id: str, settings: SiteIn) -> list[tuple[Row[Any], int]]:
    """Return the open accounts of a site whose limit is another one now."""
    known = weights(session.connection(), utcnow())
    offered = [known[name] for name in settings.gpu_types if name in known]
    if not offered:
        return []
    is_open = (accounts.c.opened_at.is_not(None), accounts.c.left_at.is_(None))
    rows = session.execute(select(*accounts.c).where(accounts.c.site_id == site_id, *is_open)).all()
    projects = [row.project_id for row in rows]
    used, held = _used(session, site_id, projects), _held(session, site_id, projects, settings.kill_grace_s)
    left = _left(session, projects)
    counted = select(accounts.c.project_id, func.count()).where(accounts.c.project_id.in_(projects), *is_open)
    sites = {row[0]: row[1] for row in session.execute(counted.group_by(accounts.c.project_id))}
    found = []
    for row in rows:
        id_ = row.project_id
        stand = Stand(used.get(id_, 0), held.get(id_, 0), left.get(id_, 0), sites[id_], min(offered))
        if (minutes := gpu_minutes(stand)) != row.gpu_minutes_max:
            found.append((row, minutes))
    return found


def _used(session: Session, site_id: str, projects: list[str]) -> Mapping[str, int]:
    """Return what was charged there; of what a site said of one attempt over time, the largest counts."""
    attempts = (
        select(_usage.c.project_id, func.max(_usage.c.gpus * _usage.c.elapsed_s).label("gpu_s"))
        .where(_usage.c.site_id == site_id, _usage.c.project_id.in_(projects))
        .group_by(_usage.c.project_id, _usage.c.attempt_id)
        .subquery()
    )
    wanted = select(attempts.c.project_id, func.sum(attempts.c.gpu_s)).group_by(attempts.c.project_id)
    return {project_id: int(total) for project_id, total in session.execute(wanted)}


def _held(session: Session, site_id: str, projects: list[str], kill_grace_s: int) -> Mapping[str, int]:
    wanted = (
        select(jobs.c.project_id, func.sum(cast(jobs.c.gpus_taken, BIG) * (jobs.c.time_limit_s + kill_grace_s)))
        .where(jobs.c.site_id == site_id, jobs.c.settled_at.is_(None), jobs.c.project_id.in_(projects))
        .group_by(jobs.c.project_id)
    )
    return {project_id: int(total) for project_id, total in session.execute(wanted)}


def _left(session: Session, projects: list[str]) -> Mapping[str, int]:
    wanted = (
        select(_awards.c.project_id, func.sum(_ledger_accounts.c.balance))
        .join(_ledger_accounts, _ledger_accounts.c.id == "available:" + _awards.c.id)
        .where(_awards.c.project_id.in_(projects), _awards.c.state == AwardState.ACTIVE.value)
        .group_by(_awards.c.project_id)
    )
    return {project_id: int(total) for project_id, total in session.execute(wanted)}
