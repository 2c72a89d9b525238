"""Jobs that run after others of their project: checked when submitted, kept back or ended when they are due.

Where the other job is known at the same site, the site's scheduler waits for it; anywhere else the job waits here.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, exists, or_, select
from sqlmodel import Session

from adapters.port import After, AfterKind
from broker.errors import BadRequest, NotFound
from broker.known import has_its_id
from broker.lifecycle import ENDED, JobState
from broker.models import JobAfter
from broker.moves import jobs
from broker.schemas import JobIn

_links: Table = JobAfter.__table__  # type: ignore[attr-defined]
_others = jobs.alias("other")
_with_states = (
    select(_links.c.job_id, _links.c.kind, _others.c.id, _others.c.state, _others.c.site_job_id)
    .join(_others, _others.c.id == _links.c.other_id)
    .order_by(_others.c.id)
)
_ENDED = sorted(ENDED)
_FAILED = sorted(ENDED - {JobState.SUCCEEDED})
_ENDS = {"afterok": "its success", "afterany": "its end", "afternotok": "its failure"}


def check_after(connection: Connection, project_id: str, project: str, wanted: JobIn) -> None:
    """Refuse a job that would run after one that its project does not have, or after an end that did not come.

    Raises:
        NotFound, BadRequest: the rule that refuses it.
    """
    if not wanted.after:
        return
    ids = [one.job for one in wanted.after]
    mine = select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(ids), jobs.c.project_id == project_id)
    states = {row.id: row.state for row in connection.execute(mine)}
    for one in wanted.after:
        if one.job not in states and re.fullmatch(r"[^_]+_[0-9]+", one.job):
            raise BadRequest(
                f"a job runs after whole jobs, and {one.job} names one task of an array",
                f"--after {one.job.partition('_')[0]}, which waits for all its tasks",
            )
        if one.job not in states:
            raise NotFound(f"project {project} has no job {one.job} to run after", "`idf-compute jobs` lists its jobs")
        if _never(one.kind, states[one.job]):
            why = _why_never(one.kind, one.job, states[one.job])
            raise BadRequest(why, "submit that job again, or leave out --after")


def waits_for(wanted: JobIn) -> str | None:
    """Say in a sentence what a job waits for; None when it runs after none."""
    if not wanted.after:
        return None
    shown = [f"{one.job} ({_ENDS[one.kind]})" for one in wanted.after]
    return f"it runs after {', '.join(shown)}"


def after_rows(job_id: str, wanted: JobIn) -> tuple[tuple[Table, Mapping[str, Any]], ...]:
    """Return the rows that keep what a job runs after."""
    return tuple((_links, {"job_id": job_id, "other_id": one.job, "kind": one.kind}) for one in wanted.after)


def is_due(job: Table, *, waits_there: bool) -> ColumnElement[bool]:
    """Select jobs that nothing keeps here any more: the others have ended, or the same site knows them.

    `waits_there` says that the site's scheduler can be asked to wait.

    One that never may run is due as well: it is to be ended.
    """
    mine = and_(_links.c.job_id == job.c.id, _others.c.id == _links.c.other_id)
    known_there = and_(_others.c.site_id == job.c.site_id, _others.c.site_job_id.is_not(None), has_its_id(_others))
    waits = exists().where(mine, _others.c.state.not_in(_ENDED), *([~known_there] if waits_there else []))
    never = exists().where(
        mine,
        or_(
            and_(_links.c.kind == AfterKind.OK.value, _others.c.state.in_(_FAILED)),
            and_(_links.c.kind == AfterKind.NOT_OK.value, _others.c.state == JobState.SUCCEEDED.value),
        ),
    )
    return ~waits | never


def others_of(session: Session, rows: Sequence[Row[Any]]) -> dict[str, list[Row[Any]]]:
    """Return what each of these jobs runs after, with the others' states, by job id."""
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for link in session.execute(_with_states.where(_links.c.job_id.in_([row.id for row in rows]))):
        found[link.job_id].append(link)
    return found


def links_of(session: Session, job_id: str) -> Sequence[Row[Any]]:
    """Return what one job runs after, with the others' states."""
    return session.execute(_with_states.where(_links.c.job_id == job_id)).all()


def never_runs(links: Sequence[Row[Any]]) -> str | None:
    """Say why a job can never run any more; None when it may."""
    return next((_why_never(link.kind, link.id, link.state) for link in links if _never(link.kind, link.state)), None)


def still_to_come(links: Sequence[Row[Any]]) -> tuple[After, ...]:
    """Return the jobs that the site itself has to wait for."""
    return tuple(After(AfterKind(link.kind), link.site_job_id) for link in links if JobState(link.state) not in ENDED)


def _never(kind: str, state: str) -> bool:
    if JobState(state) is JobState.SUCCEEDED:
        return kind == AfterKind.NOT_OK
    return kind == AfterKind.OK and JobState(state) in ENDED


def _why_never(kind: str, other_id: str, state: str) -> str:
    return f"job {other_id} is {state}, and this one was to run after {_ENDS[kind]}"
