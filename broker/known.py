"""Jobs as their site knows them: by a name of ours, which is unique for ever, and by an id of the site's.

A slurmctld that was killed may give the id of a job that it forgot to the next one (seen on 22.05). Two jobs of
ours then have one id, and only the one that was sent later still has it.
"""

from collections import defaultdict
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, or_, select
from sqlmodel import Session

from adapters.port import Known
from broker.moves import jobs
from broker.tasks import tasks_of

_others = jobs.alias("of_the_same_id")


def job_name(job_id: str) -> str:
    """Return the opaque, deterministic and unique name that a site knows a job by."""
    return f"idf-{job_id}"


def known(row: Any, tasks: frozenset[int] | None = None, namesakes: frozenset[str] = frozenset()) -> Known:
    """Return a job as its site knows it; an array with these tasks, or with all of its tasks."""
    if tasks is None and row.array_words is not None:
        tasks = frozenset(tasks_of(row))
    return Known(job_name(row.id), row.account, row.site_job_id, row.sent_at, tasks, namesakes)


def namesakes_at(session: Session, site_id: str) -> dict[str, frozenset[str]]:
    """Return, of each unsettled job of a site that shares its id there with others, their names; by job id."""
    open_there = and_(jobs.c.site_id == site_id, jobs.c.settled_at.is_(None), jobs.c.site_job_id.is_not(None))
    found: dict[str, set[str]] = defaultdict(set)
    for mine, other in session.execute(select(jobs.c.id, _others.c.id).join(_others, _shares(jobs)).where(open_there)):
        found[mine].add(job_name(other))
    return {job_id: frozenset(names) for job_id, names in found.items()}


def has_its_id(job: FromClause) -> ColumnElement[bool]:
    """Select jobs whose id at their site means them: no other that was sent later has it, nor one sent with them."""
    later = _others.c.sent_at > job.c.sent_at
    together = and_(_others.c.sent_at == job.c.sent_at, _others.c.settled_at.is_(None))
    return ~exists().where(_shares(job), or_(later, together))


def _shares(job: FromClause) -> ColumnElement[bool]:
    same = and_(_others.c.site_id == job.c.site_id, _others.c.site_job_id == job.c.site_job_id)
    return and_(same, _others.c.id != job.c.id)
