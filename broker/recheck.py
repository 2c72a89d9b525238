"""Looking again at what is settled: sites revise their accounting, and some of it arrives late.

Jobs settled in the last `recheck_days` are observed again each hour. What is known otherwise by then becomes a
further usage record and an adjustment, with an event of the job that says so (accounting.adjustments).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Row, insert, select
from sqlmodel import Session
from sqlmodel import select as select_models

from accounting.adjustments import Adjusted, adjust_job, differing, newest_records
from accounting.errors import Unmeterable
from accounting.meter import EndedAttempt
from accounting.tariffs import Rates
from adapters.errors import SiteError
from adapters.port import Attempt
from broker.bootstrap import Services
from broker.dispatch import Desk
from broker.known import job_name, known
from broker.lifecycle import JobState
from broker.models import Site
from broker.moves import change_jobs, event_row, events, jobs
from broker.observed import ended_attempt
from broker.schemas import SiteIn
from broker.settlement import charges_of, owner_of
from broker.tasks import job_tasks
from quotas.amounts import hours_text
from quotas.charging import rules_by_id
from storage.tables import utcnow

OBSERVED_MAX = 500
"""Jobs per observation."""
TASKS_OBSERVED_MAX = 5000
"""Tasks of arrays per observation, but for one array alone."""
OBSERVATIONS_MAX = 20
"""Per site and turn; what is left over is looked at in the next one, from the newest on."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Seen:
    """A settled job and its ended attempts as the site reports them now."""

    row: Row[Any]
    attempts: tuple[EndedAttempt, ...]


def recheck_all(services: Services) -> None:
    """Look again at the settled jobs of every site; one that does not answer is looked at in the next hour."""
    with services.database.read() as session:
        sites = session.exec(select_models(Site.id, Site.settings)).all()
    for site_id, settings in sites:
        site = SiteIn.model_validate(settings)
        try:
            recheck(Desk(services, site_id, site, services.schedulers.at(site_id, site)))
        except SiteError as error:
            log.warning("site-trouble", site=site.name, step="recheck", code=error.code, reason=error.reason)


def recheck(desk: Desk) -> int:
    """Observe a site's recently settled jobs once more and post what changed; return how many jobs that were.

    Raises:
        SiteError: the site did not answer; what was posted before stands.
    """
    changed, last = 0, None
    for _ in range(OBSERVATIONS_MAX):
        rows = _settled(desk, last)
        if not rows:
            return changed
        rows = _observable(rows)
        last = rows[-1].id
        settled = [known(row) for row in rows]
        observed = desk.scheduler.observe(settled).attempts
        changed += sum(_adjust(desk, seen) for seen in _changed(desk, rows, observed))
    log.warning("recheck-bound", site=desk.settings.name, jobs=OBSERVED_MAX * OBSERVATIONS_MAX)
    return changed


def _settled(desk: Desk, last: str | None) -> Sequence[Row[Any]]:
    """Return the next jobs, newest first: ids sort by time."""
    since = utcnow() - timedelta(days=desk.services.settings.recheck_days)
    wanted = select(*jobs.c).where(
        jobs.c.site_id == desk.site_id, jobs.c.settled_at >= since, jobs.c.site_job_id.is_not(None)
    )
    if last is not None:
        wanted = wanted.where(jobs.c.id < last)
    with desk.services.database.read() as session:
        return session.execute(wanted.order_by(jobs.c.id.desc()).limit(OBSERVED_MAX)).all()


def _observable(rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """Return the first of the jobs: as many as one observation can hold, since each task of an array is told apart."""
    tasks = 0
    for number, row in enumerate(rows):
        tasks += row.tasks
        if tasks > TASKS_OBSERVED_MAX and number:
            return rows[:number]
    return rows


def _changed(desk: Desk, rows: Sequence[Row[Any]], observed: Mapping[str, tuple[Attempt, ...]]) -> list[Seen]:
    """Return the jobs of which the site says something else now; silence and absence change nothing."""
    found = []
    with desk.services.database.read() as session:
        records = newest_records(session, [row.id for row in rows])
        rules = rules_by_id(session.connection(), {row.charging_rule_id for row in rows})
        for row in rows:
            owner = owner_of(row, rules[row.charging_rule_id])
            try:
                ended = tuple(ended_attempt(a, owner) for a in observed.get(job_name(row.id), ()) if a.state.ended)
                differs = differing(session, owner, ended, records.get(row.id, {}), utcnow())
            except Unmeterable as error:
                log.warning("recheck-unmeterable", site=desk.settings.name, job=row.id, reason=str(error))
                continue
            if differs:
                found.append(Seen(row, ended))
    return found


def _adjust(desk: Desk, seen: Seen) -> bool:
    """Decide again under the job's lock, since another worker may have been here since the look."""
    now = utcnow()
    with desk.services.database.write() as session:
        row = session.execute(select(*jobs.c).where(jobs.c.id == seen.row.id).with_for_update()).one()
        rule = rules_by_id(session.connection(), [row.charging_rule_id])[row.charging_rule_id]
        adjusted = adjust_job(session, owner_of(row, rule), seen.attempts, Rates(session.connection()), now)
        if adjusted:
            change_jobs(session, [(row.id, {"charged_credits": charges_of(session, [row.id])[row.id]})])
            _charge_tasks(session, row.id, adjusted)
            rows = [event_row(row.id, JobState(row.state), _cause(one), now) for one in adjusted]
            session.connection().execute(insert(events), rows)
    return bool(adjusted)


def _charge_tasks(session: Session, job_id: str, adjusted: Sequence[Adjusted]) -> None:
    """Say of each task of an array that was adjusted what it is charged now."""
    for one in adjusted:
        if one.task is not None:
            its = (job_tasks.c.job_id == job_id) & (job_tasks.c.task == one.task)
            charged = job_tasks.c.charged_credits + (one.after - (one.before or 0))
            session.connection().execute(job_tasks.update().where(its).values(charged_credits=charged))


def _cause(adjusted: Adjusted) -> str:
    used = f"{adjusted.elapsed_s} s on {adjusted.gpus} GPUs"
    used = used if adjusted.task is None else f"{used} of task {adjusted.task}"
    if adjusted.before is None:
        return (
            f"adjusted: the site reports a run of {used} that was not seen before, charged {hours_text(adjusted.after)}"
        )
    return (
        f"adjusted: the site now reports {used}, charged {hours_text(adjusted.after)} "
        f"instead of {hours_text(adjusted.before)}"
    )
