"""What the site says, brought home: states, usage records, charges. One observation for all jobs of a site.

Each job that changed is applied by itself inside the same write, and one that cannot be metered stays
open with the reason shown: unknown is never zero, and one odd row never holds up the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row, select
from sqlmodel import Session

from accounting.errors import Unmeterable
from accounting.meter import EndedAttempt, Owner
from adapters.arrays import task_name
from adapters.port import Attempt, AttemptState, Observation
from broker.arrays import TASKS_APPLY_MAX, apply_array, array_changes
from broker.dispatch import Desk
from broker.known import job_name, known, namesakes_at
from broker.lifecycle import ENDED, JobState
from broker.moves import Move, apply_moves, change_jobs, jobs
from broker.observed import (
    NOBODY_KNOWS,
    Terms,
    end_text,
    ended_attempt,
    held_s,
    missing_text,
    outcome_values,
    runaway_end,
    too_much,
    unknown_text,
    waited_for,
    where_text,
)
from broker.settlement import charge, owner_of, settle_jobs
from broker.tasks import open_tasks, rows_of_tasks
from broker.top_ups import top_up_job
from quotas.charging import rules_by_id
from storage.tables import utcnow

APPLY_MAX = 200
"""Jobs per write, so that no lock is held for long."""
EXPECTED_START_MOVES = timedelta(minutes=5)
"""An estimate that moved by less is not written anew: schedulers reckon it again every few seconds."""

_WATCHED = (
    jobs.c.id, jobs.c.state, jobs.c.reason, jobs.c.account, jobs.c.site_job_id, jobs.c.sent_at, jobs.c.gpus,
    jobs.c.gpu_class, jobs.c.time_limit_s, jobs.c.started_at, jobs.c.cancel_requested_at, jobs.c.award_id,
    jobs.c.project_id, jobs.c.programme_id, jobs.c.site_id, jobs.c.weight_thousandths, jobs.c.exclusive,
    jobs.c.charging_rule_id, jobs.c.rate_credits_per_s, jobs.c.held_credits, jobs.c.missing_since,
    jobs.c.array_words, jobs.c.tasks, jobs.c.cancel_sent_at, jobs.c.requeues, jobs.c.expected_start_at,
)  # fmt: skip
log = structlog.get_logger()


@dataclass(slots=True)
class Changes:
    """What one job's observation leads to."""

    row: Row[Any]
    moves: list[Move] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    ended: tuple[EndedAttempt, ...] = ()
    settles: bool = False
    time_limit_s: int | None = None
    """What its site raised its time limit to: the hold must grow, or the job must end."""
    drift_s: int = 0
    """How long accounting shows it at work beyond what its hold pays for, where nobody will ever tell its end."""

    def __bool__(self) -> bool:
        return bool(self.moves or self.values or self.ended or self.settles or self.time_limit_s)


def reconcile(desk: Desk) -> int:
    """Observe all open jobs of a site once and apply what changed; return how many jobs changed.

    Raises:
        Unreachable: the site did not answer; nothing is changed.
    """
    with desk.services.database.read() as session:
        wanted = select(*_WATCHED).where(
            jobs.c.site_id == desk.site_id, jobs.c.settled_at.is_(None), jobs.c.site_job_id.is_not(None)
        )
        rows = session.execute(wanted).all()
        terms = _terms(session, desk, rows)
        tasks = rows_of_tasks(session, [row.id for row in rows if row.array_words is not None])
        namesakes = namesakes_at(session, desk.site_id)
    if not rows:
        return 0
    asked = {row.id: open_tasks(row, tasks[row.id]) for row in rows if row.id in tasks}
    observation = desk.scheduler.observe(
        [known(row, asked.get(row.id), namesakes.get(row.id, frozenset())) for row in rows]
    )
    for warning in observation.warnings:
        log.warning("site-warning", site=desk.settings.name, warning=warning)
    changed = [row.id for row in rows if row.id not in tasks and changes_of(row, observation, terms)]
    for start in range(0, len(changed), APPLY_MAX):
        _apply(desk, changed[start : start + APPLY_MAX], observation)
    arrays = [row.id for row in rows if row.id in tasks and array_changes(row, tasks[row.id], observation, terms)]
    for job_id in arrays:
        while _apply_array(desk, job_id, observation):
            pass  # more of its tasks may have changed than one write holds
    return len(changed) + len(arrays)


def _apply(desk: Desk, ids: Sequence[str], observation: Observation) -> None:
    """Decide again inside the write, since somebody may have been here since the look."""
    now = utcnow()
    with desk.services.database.write() as session:
        wanted = select(*jobs.c).where(jobs.c.id.in_(ids), jobs.c.settled_at.is_(None)).with_for_update()
        rows = session.execute(wanted).all()
        terms = _terms(session, desk, rows)
        decided = [changes_of(row, observation, terms) for row in rows]
        apply_changes(session, [changes for changes in decided if changes], now)
    for changes in decided:
        if changes.drift_s:
            log.warning("drift", site=desk.settings.name, job=changes.row.id, uncharged_s=changes.drift_s)


def _apply_array(desk: Desk, job_id: str, observation: Observation) -> bool:
    """Decide again inside the write, as for jobs; say whether more of the array's tasks have changed."""
    now = utcnow()
    with desk.services.database.write() as session:
        wanted = select(*jobs.c).where(jobs.c.id == job_id, jobs.c.settled_at.is_(None)).with_for_update()
        row = session.execute(wanted).one_or_none()
        if row is None:
            return False
        known = rows_of_tasks(session, [job_id])[job_id]
        changes = array_changes(row, known, observation, _terms(session, desk, [row]))
        more = len(changes.tasks) > TASKS_APPLY_MAX
        del changes.tasks[TASKS_APPLY_MAX:]
        if changes:
            apply_array(session, known, changes, now)
    for change in changes.tasks:
        if change.drift_s:
            name = task_name(job_id, change.task)
            log.warning("drift", site=desk.settings.name, job=name, uncharged_s=change.drift_s)
    return more


def apply_changes(session: Session, decided: Sequence[Changes], now: datetime) -> None:
    """Write moves, then charges, then settlements; all of one write."""
    _apply_in_steps(session, [changes.moves for changes in decided], now)
    change_jobs(session, [(changes.row.id, changes.values) for changes in decided if changes.values])
    for changes in decided:
        if changes.time_limit_s is not None and changes.row.cancel_requested_at is None:
            _top_up(session, changes.row, changes.time_limit_s, now)
    charge(session, {changes.row.id: (changes.row, changes.ended) for changes in decided if changes.ended}, now)
    settled = [changes.row for changes in decided if changes.settles]
    if settled:
        settle_jobs(session, settled, now)


def _top_up(session: Session, row: Row[Any], time_limit_s: int, now: datetime) -> None:
    refusal = top_up_job(session, row, time_limit_s, now)
    if refusal is not None:
        cause = f"its time limit was raised to {time_limit_s // 60} min where {row.time_limit_s // 60} are held: "
        cause = (cause + refusal.detail)[:300]
        change_jobs(session, [(row.id, {"cancel_requested_at": now, "cancel_cause": cause})])


def _apply_in_steps(session: Session, moves: Sequence[Sequence[Move]], now: datetime) -> None:
    """Apply everybody's first move, then everybody's second: events keep their order."""
    for step in range(max((len(some) for some in moves), default=0)):
        apply_moves(session, [some[step] for some in moves if len(some) > step], now)


def _terms(session: Session, desk: Desk, rows: Sequence[Row[Any]]) -> Terms:
    rules = rules_by_id(session.connection(), {row.charging_rule_id for row in rows})
    return Terms(desk.settings.gpu_types, rules, utcnow(), desk.services.settings.lost_after_s)


def changes_of(row: Row[Any], observation: Observation, terms: Terms) -> Changes:
    """Compare a job's row with what was seen of it. Pure."""
    changes, name = Changes(row), job_name(row.id)
    attempts = observation.attempts.get(name, ())
    if name in observation.absent:
        if _is_given_up(changes, terms):
            _lose(changes, NOBODY_KNOWS)
        return changes
    if not attempts:
        return changes  # the site could not say: nothing is concluded from silence
    try:
        if name in observation.runaways:
            return _run_away(changes, attempts, terms)
        return _shown(changes, attempts, terms)
    except Unmeterable as error:
        return _with_reason(Changes(row), str(error))


def _shown(changes: Changes, attempts: Sequence[Attempt], terms: Terms) -> Changes:
    row, newest = changes.row, attempts[-1]
    owner = owner_of(row, terms.rules[row.charging_rule_id])
    ended = tuple(ended_attempt(attempt, owner) for attempt in attempts if attempt.state.ended)
    if row.missing_since is not None:
        changes.values["missing_since"] = None
    if newest.state is AttemptState.UNKNOWN:
        return _with_reason(changes, unknown_text(newest))
    _follow(changes, newest)
    _expect(changes, newest)
    if newest.state.ended:
        changes.ended, changes.settles = ended, True  # each is charged with the last one, in one settlement
    else:
        _watch_size(changes, newest, owner, terms.gpu_types, len(attempts))
    return changes


def _is_given_up(changes: Changes, terms: Terms) -> bool:
    """Say whether a job that its site does not show has been missing for long enough; note since when it is."""
    until = waited_for(changes.row.missing_since, terms)
    if until is not None and changes.row.missing_since is None:
        changes.values["missing_since"] = terms.now
        _with_reason(changes, missing_text(until))
    return until is None


def _lose(changes: Changes, cause: str) -> None:
    if JobState(changes.row.state) not in ENDED:
        values = {"reason": cause[:1000], "ended_at": utcnow()}
        changes.moves.append(Move(changes.row.id, JobState(changes.row.state), JobState.LOST, cause, values))
    changes.settles = True


def _run_away(changes: Changes, attempts: Sequence[Attempt], terms: Terms) -> Changes:
    if _is_given_up(changes, terms):
        row = changes.row
        end = runaway_end(attempts, owner_of(row, terms.rules[row.charging_rule_id]), held_s(row))
        changes.ended, changes.drift_s = end.ended, end.drift_s
        _lose(changes, end.cause)
    return changes


def _follow(changes: Changes, newest: Attempt) -> None:
    """Bring the job's state to that of its newest attempt, through `running` where it ran unseen."""
    before, after = JobState(changes.row.state), JobState(newest.state.value)
    if before is after or before in ENDED:
        if before not in ENDED:
            _with_reason(changes, newest.reason or None)
        return
    started = {"started_at": newest.started_at} if newest.started_at and changes.row.started_at is None else {}
    if before is JobState.QUEUED and newest.started_at is not None and after is not JobState.RUNNING:
        changes.moves.append(Move(changes.row.id, before, JobState.RUNNING, f"started{where_text(newest)}", started))
        before = JobState.RUNNING
    changes.moves.append(Move(changes.row.id, before, after, _cause(newest), {**started, **outcome_values(newest)}))


def _cause(newest: Attempt) -> str:
    if newest.state is AttemptState.RUNNING:
        return f"started{where_text(newest)}"
    return "put back into the queue by the site" if newest.state is AttemptState.QUEUED else end_text(newest)


def _expect(changes: Changes, newest: Attempt) -> None:
    """Keep the scheduler's estimate of a job that waits, and forget it once the job runs."""
    before, after = changes.row.expected_start_at, newest.expected_start
    known = before is not None and after is not None
    if (abs(after - before) >= EXPECTED_START_MOVES) if known else (before is not after):
        changes.values["expected_start_at"] = after


def _watch_size(changes: Changes, newest: Attempt, owner: Owner, gpu_types: Mapping[str, str], runs: int) -> None:
    """Ask for the end of a job that got more than its hold pays for."""
    row = changes.row
    cause = too_much(row, newest, owner, gpu_types, runs)
    if cause is None and newest.time_limit_s is not None and newest.time_limit_s > row.time_limit_s:
        changes.time_limit_s = newest.time_limit_s
    if cause is not None and row.cancel_requested_at is None:
        changes.values |= {"cancel_requested_at": utcnow(), "cancel_cause": cause}


def _with_reason(changes: Changes, reason: str | None) -> Changes:
    if reason is not None:
        reason = reason[:1000]
    if changes.row.reason != reason:
        changes.values["reason"] = reason
    return changes
