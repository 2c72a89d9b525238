"""What the site says, brought home: states, usage records, charges. One observation for all jobs of a site.

Each job that changed is applied by itself inside the same write, and one that cannot be metered stays
open with the reason shown: unknown is never zero, and one odd row never holds up the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row, select
from sqlmodel import Session

from accounting.errors import Unmeterable
from accounting.meter import EndedAttempt, Owner, allocated_rate
from adapters.port import UNLIMITED_S, Attempt, AttemptState, Known, Observation
from broker.dispatch import Desk, job_name
from broker.lifecycle import ENDED, JobState
from broker.moves import Move, apply_moves, change_jobs, jobs
from broker.settlement import charge, owner_of, settle_jobs
from broker.top_ups import top_up_job
from quotas.charging import Rule, rules_by_id
from storage.tables import utcnow

APPLY_MAX = 200
"""Jobs per write, so that no lock is held for long."""

_WATCHED = (
    jobs.c.id, jobs.c.state, jobs.c.reason, jobs.c.account, jobs.c.site_job_id, jobs.c.sent_at, jobs.c.gpus,
    jobs.c.gpu_class, jobs.c.time_limit_s, jobs.c.started_at, jobs.c.cancel_requested_at, jobs.c.award_id,
    jobs.c.project_id, jobs.c.programme_id, jobs.c.site_id, jobs.c.weight_thousandths, jobs.c.exclusive,
    jobs.c.charging_rule_id, jobs.c.rate_credits_per_s, jobs.c.held_credits, jobs.c.missing_since,
)  # fmt: skip
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """What the jobs of a site are held to."""

    gpu_types: Mapping[str, str]
    """The site's names of GPU classes."""
    rules: Mapping[str | None, Rule]
    """The rules of their holds, by id."""
    now: datetime
    lost_after_s: int


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
    if not rows:
        return 0
    known = [Known(job_name(row.id), row.account, row.site_job_id, row.sent_at) for row in rows]
    observation = desk.scheduler.observe(known)
    for warning in observation.warnings:
        log.warning("site-warning", site=desk.settings.name, warning=warning)
    changed = [row.id for row in rows if changes_of(row, observation, terms)]
    for start in range(0, len(changed), APPLY_MAX):
        _apply(desk, changed[start : start + APPLY_MAX], observation)
    return len(changed)


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
    changes = Changes(row)
    if row.site_job_id in observation.absent:
        if _is_given_up(changes, terms):
            _lose(changes, "neither the queue nor the accounting database of the site knows it")
        return changes
    attempts = observation.attempts.get(row.site_job_id, ())
    if not attempts:
        return changes  # the site could not say: nothing is concluded from silence
    try:
        owner = owner_of(row, terms.rules[row.charging_rule_id])
        changes.ended = tuple(ended_attempt(attempt, owner) for attempt in attempts if attempt.state.ended)
    except Unmeterable as error:
        return _with_reason(Changes(row), str(error))
    newest = attempts[-1]
    if row.site_job_id in observation.runaways:
        if _is_given_up(changes, terms):
            _end_runaway(changes, newest)
        return changes
    if row.missing_since is not None:
        changes.values["missing_since"] = None
    if newest.state is AttemptState.UNKNOWN:
        changes.ended = ()
        return _with_reason(changes, f"the site reports a state that nobody knows: {newest.native_state}")
    _follow(changes, newest)
    if newest.state.ended:
        changes.settles = True
    else:
        changes.ended = ()  # charged with the last attempt, in one settlement
        _watch_size(changes, newest, owner, terms.gpu_types)
    return changes


def _is_given_up(changes: Changes, terms: Terms) -> bool:
    """Say whether a job that its site does not show has been missing for long enough; note since when it is."""
    since = changes.row.missing_since or terms.now
    until = since + timedelta(seconds=terms.lost_after_s)
    if terms.now >= until:
        return True
    changes.ended = ()
    if changes.row.missing_since is None:
        changes.values["missing_since"] = since
        _with_reason(changes, f"the site no longer shows it; the broker waits until {until:%H:%M:%S} UTC for it")
    return False


def _lose(changes: Changes, cause: str) -> None:
    if JobState(changes.row.state) not in ENDED:
        values = {"reason": cause[:1000], "ended_at": utcnow()}
        changes.moves.append(Move(changes.row.id, JobState(changes.row.state), JobState.LOST, cause, values))
    changes.settles = True


def _end_runaway(changes: Changes, newest: Attempt) -> None:
    """Charge what its hold pays for, at most: a run without an end would be charged for ever (docs/rules.md)."""
    row = changes.row
    covered_s = min(newest.elapsed_s, row.held_credits // row.rate_credits_per_s)
    changes.drift_s = newest.elapsed_s - covered_s
    if newest.started_at is not None:
        ended = _as_seen(newest)
        ended_at = newest.started_at + timedelta(seconds=covered_s)
        changes.ended = (*changes.ended, replace(ended, elapsed_s=covered_s, ended_at=ended_at))
    cause = f"accounting shows it at work, the queue does not know it: a runaway, charged for {covered_s} s"
    rest = f"; {changes.drift_s} s beyond its hold are drift, charged to nobody" if changes.drift_s else ""
    _lose(changes, cause + rest)


def _follow(changes: Changes, newest: Attempt) -> None:
    """Bring the job's state to that of its newest attempt, through `running` where it ran unseen."""
    before, after = JobState(changes.row.state), JobState(newest.state.value)
    if before is after or before in ENDED:
        if before not in ENDED:
            _with_reason(changes, newest.reason or None)
        return
    started = {"started_at": newest.started_at} if newest.started_at and changes.row.started_at is None else {}
    if before is JobState.QUEUED and newest.started_at is not None and after is not JobState.RUNNING:
        where = f" on {', '.join(newest.nodes)}" if newest.nodes else ""
        changes.moves.append(Move(changes.row.id, before, JobState.RUNNING, f"started{where}", started))
        before = JobState.RUNNING
    changes.moves.append(Move(changes.row.id, before, after, _cause(newest), {**started, **_outcome(newest)}))


def _cause(newest: Attempt) -> str:
    if newest.state is AttemptState.RUNNING:
        return f"started on {', '.join(newest.nodes)}" if newest.nodes else "started"
    if newest.state is AttemptState.QUEUED:
        return "put back into the queue by the site"
    code = f", exit code {newest.exit_code}" if newest.exit_code else ""
    signal = f", signal {newest.signal}" if newest.signal else ""
    return f"the site reports {newest.native_state}{code}{signal}"


def _outcome(newest: Attempt) -> dict[str, Any]:
    reason = (newest.reason or None) if newest.state is not AttemptState.SUCCEEDED else None
    values: dict[str, Any] = {"reason": reason[:1000] if reason else None}
    if newest.state.ended:
        values |= {"ended_at": newest.ended_at, "exit_code": newest.exit_code}
    return values


def ended_attempt(attempt: Attempt, owner: Owner) -> EndedAttempt:
    """Return an ended attempt as accounting knows it.

    Raises:
        Unmeterable: the source does not tell what was allocated.
    """
    ended = _as_seen(attempt)
    allocated_rate(owner, ended, owner.weight_thousandths)
    return ended


def _as_seen(attempt: Attempt) -> EndedAttempt:
    return EndedAttempt(
        source_key=attempt.source_key,
        state=attempt.state.value,
        native_state=attempt.native_state[:64],
        gpus=attempt.gpus,
        elapsed_s=attempt.elapsed_s,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at or attempt.submitted_at,
        cpus=attempt.cpus,
        memory_mib=attempt.memory_mib,
        nodes=attempt.node_count,
    )


def _watch_size(changes: Changes, newest: Attempt, owner: Owner, gpu_types: Mapping[str, str]) -> None:
    """Ask for the end of a job that got more than its hold pays for."""
    row = changes.row
    expected = gpu_types[row.gpu_class] if row.gpus else "no GPU"
    cause = None
    rate = _rate_now(newest, owner)
    if rate > row.rate_credits_per_s:
        cause = (
            f"the site allocated {_given(newest)}, which counts {rate} credits a second "
            f"where {row.rate_credits_per_s} are held"
        )
    elif any(name != expected for name in newest.gpu_types):
        cause = f"the site allocated {', '.join(sorted(newest.gpu_types))} where {expected} is held"
    elif newest.time_limit_s == UNLIMITED_S:
        cause = f"its time limit was taken away where {row.time_limit_s // 60} min are held"
    elif newest.time_limit_s is not None and newest.time_limit_s > row.time_limit_s:
        changes.time_limit_s = newest.time_limit_s
    if cause is not None and row.cancel_requested_at is None:
        changes.values |= {"cancel_requested_at": utcnow(), "cancel_cause": cause}


def _rate_now(newest: Attempt, owner: Owner) -> int:
    """Return what a job that is not over counts; 0 as long as the site does not tell: from that nothing follows."""
    try:
        return allocated_rate(owner, _as_seen(newest), owner.weight_thousandths)
    except Unmeterable:
        return 0


def _given(newest: Attempt) -> str:
    figures = [(newest.gpus, "GPUs"), (newest.cpus, "CPUs"), (newest.memory_mib, "MiB"), (newest.node_count, "nodes")]
    return ", ".join(f"{amount} {what}" for amount, what in figures if amount is not None)


def _with_reason(changes: Changes, reason: str | None) -> Changes:
    if reason is not None:
        reason = reason[:1000]
    if changes.row.reason != reason:
        changes.values["reason"] = reason
    return changes
