"""Telling a site that keeps ended jobs which of them are booked.

The site's own list of what it keeps is the memory: a broker that died between a settlement and this finds the
job there again, and a job that this region does not know stays kept.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import select

from adapters.port import Accepted, Keeper, Known
from broker.dispatch import Desk
from broker.known import job_name
from broker.moves import jobs

AT_ONCE_MAX = 500
log = structlog.get_logger()


def let_go(desk: Desk) -> int:
    """Let the site go of what it keeps of settled jobs, at most 500 at once; return of how many it did."""
    if not isinstance(desk.scheduler, Keeper):
        return 0
    kept = desk.scheduler.kept()
    booked: list[Known] = []
    for start in range(0, len(kept), AT_ONCE_MAX):
        booked += _booked(desk, kept[start : start + AT_ONCE_MAX])
        if len(booked) >= AT_ONCE_MAX:
            break
    answers = desk.scheduler.forget(booked[:AT_ONCE_MAX])
    refused = {name: answer for name, answer in answers.items() if not isinstance(answer, Accepted)}
    for name, answer in list(refused.items())[:3]:
        log.warning("not-let-go", site=desk.settings.name, job=name, reason=answer.reason)
    return len(answers) - len(refused)


def _booked(desk: Desk, kept: Sequence[Known]) -> list[Known]:
    """Those that are settled here under the very id that the site has."""
    wanted = select(jobs.c.id, jobs.c.site_job_id).where(
        jobs.c.site_id == desk.site_id,
        jobs.c.settled_at.is_not(None),
        jobs.c.id.in_([job.name.removeprefix("idf-") for job in kept]),
    )
    with desk.services.database.read() as session:
        settled = {(job_name(row.id), row.site_job_id) for row in session.execute(wanted)}
    return [job for job in kept if (job.name, job.site_job_id) in settled]
