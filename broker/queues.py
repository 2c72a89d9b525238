"""Quotas on jobs: how many may wait and how many GPUs may run at once, counted where a job is taken in or sent.

A job that a site has counts with all its GPUs, whether it runs or waits there: it may start at any moment.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select
from sqlmodel import Session, col

from broker.lifecycle import JobState
from broker.models import Project, Site
from broker.moves import change_jobs, jobs
from quotas.ceilings import SCOPES, Limit, Scope, limits_of, reached
from quotas.errors import CeilingReached
from quotas.ledger import Guard
from quotas.models import Programme

WAITING = (JobState.HELD.value, JobState.DISPATCHING.value, JobState.QUEUED.value)
AT_SITE = (JobState.DISPATCHING.value, JobState.QUEUED.value, JobState.RUNNING.value)
_NAMED: dict[str, Any] = {"project": Project, "programme": Programme, "site": Site}


def queue_guards(limits: Sequence[Limit], names: Mapping[Scope, str], tasks: int = 1) -> tuple[Guard, ...]:
    """Return what keeps one more job, or an array of so many tasks, from being taken in where as many wait as may."""
    return tuple(_guard(limit, names[limit.scope], tasks) for limit in limits if limit.what == "jobs_queued")


def _guard(limit: Limit, name: str, tasks: int) -> Guard:
    key = f"{limit.scope}/{limit.scope_id}/{limit.what}"
    return Guard(key, jobs_waiting(limit), tasks, limit.amount, lambda in_use: _full(limit, name, in_use, tasks))


def _full(limit: Limit, name: str, in_use: int, tasks: int) -> CeilingReached:
    refusal = reached(limit, name, in_use, tasks)
    if tasks > limit.amount > 0:  # no waiting would help
        refusal.remedy = f"an array of at most {limit.amount} tasks"
    return refusal


def jobs_waiting(limit: Limit) -> Select[Any]:
    """Select how many jobs of a ceiling's scope wait; each task of an array counts as one, as it does at a site."""
    total = func.coalesce(func.sum(func.coalesce(jobs.c.tasks_waiting, 1)), 0)
    some_wait = jobs.c.state.in_(WAITING) | ((jobs.c.state == JobState.RUNNING.value) & (jobs.c.tasks_waiting > 0))
    return select(total).where(_owner(limit) == limit.scope_id, some_wait)


def gpus_at_sites(limit: Limit) -> Select[Any]:
    """Select how many GPUs the jobs of a ceiling's scope have at sites."""
    total = func.coalesce(func.sum(jobs.c.gpus_taken), 0)
    return select(total).where(_owner(limit) == limit.scope_id, jobs.c.state.in_(AT_SITE))


def ceiling_use(session: Session, limit: Limit) -> int | None:
    """Return what is in use under a ceiling now; None for bytes, which nothing counts yet."""
    counts = {"gpus_running": gpus_at_sites, "jobs_queued": jobs_waiting}
    count = counts.get(limit.what)
    return None if count is None else int(session.execute(count(limit)).scalar_one())


def within_ceilings(session: Session, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Keep the jobs that may be sent now, oldest first; the others go on waiting and say why.

    No job overtakes an older one under the same ceiling, which would else wait for ever behind smaller ones.
    """
    owners = sorted({(scope, getattr(row, f"{scope}_id")) for row in rows for scope in SCOPES})
    limits = [limit for limit in limits_of(session.connection(), owners, lock=True) if limit.what == "gpus_running"]
    if not limits:
        return list(rows)
    in_use = {limit: int(session.execute(gpus_at_sites(limit)).scalar_one()) for limit in limits}
    closed: set[Limit] = set()
    taken = []
    for row in rows:
        own = [limit for limit in limits if getattr(row, f"{limit.scope}_id") == limit.scope_id]
        full = next((limit for limit in own if limit in closed or in_use[limit] + row.gpus_taken > limit.amount), None)
        if full is None or not row.gpus_taken:  # a job without GPU waits for none
            taken.append(row)
            in_use |= {limit: in_use[limit] + row.gpus_taken for limit in own}
        else:
            closed.add(full)
            _say_why(session, row, full, in_use[full])
    return taken


def _say_why(session: Session, row: Row[Any], limit: Limit, in_use: int) -> None:
    owner = owner_name(session.connection(), limit)
    reason = f"waits: {limit.scope} {owner} may have {limit.amount} GPUs at once, {in_use} are in use"
    if row.reason != reason:
        change_jobs(session, [(row.id, {"reason": reason})])


def owner_name(connection: Connection, limit: Limit) -> str:
    """Return what people know a ceiling's owner by: its name, an award's id."""
    model = _NAMED.get(limit.scope)
    if model is None:
        return limit.scope_id
    name: str = connection.execute(select(col(model.name)).where(col(model.id) == limit.scope_id)).scalar_one()
    return name


def _owner(limit: Limit) -> Any:
    return jobs.c[f"{limit.scope}_id"]
