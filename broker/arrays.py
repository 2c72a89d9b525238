"""What a site says of an array, brought home task by task.

Each task that has ended is charged on its own part of the hold and gives back the rest at once; the job is settled
when all are. `array_changes` is pure; `apply_array` writes what it found, under the job's lock.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlmodel import Session

from accounting.errors import Unmeterable
from accounting.meter import EndedAttempt, Owner
from adapters.arrays import task_name
from adapters.port import Attempt, AttemptState, Observation
from broker.known import job_name
from broker.lifecycle import JobState
from broker.moves import Move, apply_moves, change_jobs
from broker.observed import (
    NOBODY_KNOWS,
    Terms,
    ended_attempt,
    held_s,
    missing_text,
    outcome_values,
    runaway_end,
    too_much,
    unknown_text,
    waited_for,
)
from broker.settlement import metered_tasks, owner_of
from broker.tasks import TaskRows, counted, open_tasks, outcome, outcome_text, write_tasks
from quotas.posting import post_all
from storage.tables import utcnow

TASKS_APPLY_MAX = 500
"""Tasks per write, so that no lock is held for long."""


@dataclass(slots=True)
class TaskChange:
    """What an observation leads to for one task."""

    task: int
    values: dict[str, Any]
    ended: tuple[EndedAttempt, ...] = ()
    settles: bool = False
    drift_s: int = 0
    """How long accounting shows it at work beyond its part of the hold, where nobody will ever tell its end."""


@dataclass(slots=True)
class ArrayChanges:
    """What an observation leads to for an array."""

    row: Row[Any]
    tasks: list[TaskChange] = field(default_factory=list)
    reason: str | None = None
    """Why its first task that waits does; None where some task runs."""

    def __bool__(self) -> bool:
        return bool(self.tasks) or self.reason != self.row.reason


def array_changes(row: Row[Any], known: TaskRows, observation: Observation, terms: Terms) -> ArrayChanges:
    """Compare an array's tasks with what was seen of them; nothing is concluded from silence. Pure."""
    job = job_name(row.id)
    attempts, gone = _by_task(observation.attempts.get(job, ())), job in observation.absent
    changes = ArrayChanges(row)
    for task in sorted(open_tasks(row, known)):
        seen, of_task, name = known.get(task), attempts.get(task, []), task_name(job, task)
        change = None
        try:
            if gone or name in observation.absent or name in observation.runaways:
                change = _not_shown(row, task, seen, of_task, terms, gone=gone)
            elif of_task:
                change = _shown(row, task, seen, of_task, terms)
        except Unmeterable as error:
            change = _noted(task, seen, str(error))
        if change is not None:
            changes.tasks.append(change)
    changes.reason = _why_it_waits(row, attempts)
    return changes


def _not_shown(
    row: Row[Any], task: int, seen: Any, attempts: Sequence[Attempt], terms: Terms, *, gone: bool
) -> TaskChange | None:
    """Give up a task that the queue does not show, and accounting does not either or for ever at work.

    One that never ran, of an array that is known, was taken out of it: Slurm 22.05 keeps no record of a task that was
    cancelled before it began, neither in the queue nor in accounting. Where the broker itself had asked for that, its
    absence is the answer; else it is waited for, as for a job.

    Raises:
        Unmeterable: the source does not tell what was allocated.
    """
    ran = any(_has_run(attempt) for attempt in attempts) or (seen is not None and seen.started_at is not None)
    was_asked = row.cancel_sent_at is not None or (seen is not None and seen.cancel_sent_at is not None)
    since = seen.missing_since if seen is not None else None
    until = waited_for(since, terms)
    if until is not None and (gone or ran or not was_asked):
        return None if since is not None else _noted(task, seen, missing_text(until), missing_since=terms.now)
    change = TaskChange(task, {"ended_at": utcnow()}, settles=True)
    if attempts and ran:
        end = runaway_end(attempts, owner_of(row, terms.rules[row.charging_rule_id]), held_s(row))
        change.ended, change.drift_s = end.ended, end.drift_s
        change.values |= {"state": JobState.LOST.value, "reason": end.cause}
    elif gone or ran:
        change.values |= {"state": JobState.LOST.value, "reason": NOBODY_KNOWS}
    else:
        cause = seen.cancel_cause if seen is not None else None
        reason = cause or "the site took it out of the array before it began"
        change.values |= {"state": JobState.CANCELLED.value, "reason": reason}
    return change


def _by_task(attempts: Sequence[Attempt]) -> dict[int, list[Attempt]]:
    by_task: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.task is not None:
            by_task[attempt.task].append(attempt)
    return by_task


def _why_it_waits(row: Row[Any], attempts: Mapping[int, Sequence[Attempt]]) -> str | None:
    newest = [some[-1] for some in attempts.values()]
    if any(attempt.state is AttemptState.RUNNING for attempt in newest):
        return None
    waiting = (attempt.reason for attempt in newest if attempt.state is AttemptState.QUEUED)
    reason = next(waiting, None) if newest else row.reason
    return reason[:1000] if reason else None


def _shown(row: Row[Any], task: int, seen: Any, attempts: Sequence[Attempt], terms: Terms) -> TaskChange | None:
    """Compare one task; `seen` is its row, None as long as it waits.

    Raises:
        Unmeterable: the source does not tell what was allocated.
    """
    newest = attempts[-1]
    if newest.state is AttemptState.QUEUED and seen is None:
        return None
    change = TaskChange(task, {})
    if seen is not None and seen.missing_since is not None:
        change.values |= {"missing_since": None, **outcome_values(newest)}
    if newest.state is AttemptState.UNKNOWN:
        return _noted(task, seen, unknown_text(newest), **change.values)
    owner = owner_of(row, terms.rules[row.charging_rule_id])
    if newest.state.ended:
        change.ended = tuple(ended_attempt(attempt, owner) for attempt in attempts if attempt.state.ended)
        change.settles = True
    elif (cause := _too_much(row, attempts, owner, terms)) and not _is_to_end(seen):
        change.values |= {"cancel_requested_at": utcnow(), "cancel_cause": cause[:300]}
    if _has_run(newest) and (seen is None or seen.started_at is None):
        change.values["started_at"] = newest.started_at
    if seen is None or seen.state != newest.state.value:
        change.values |= {"state": newest.state.value, **outcome_values(newest)}
    return change if change.values or change.settles else None


def _too_much(row: Row[Any], attempts: Sequence[Attempt], owner: Owner, terms: Terms) -> str | None:
    """Say what a task got beyond its part of the hold.

    A raised time limit ends a task of an array, where it makes a job's hold grow (broker.top_ups): the parts of the
    one hold are equal, and a task that got more than its part would take that of the others.
    """
    newest = attempts[-1]
    cause = too_much(row, newest, owner, terms.gpu_types, len(attempts))
    if cause is None and newest.time_limit_s is not None and newest.time_limit_s > row.time_limit_s:
        raised, held = newest.time_limit_s // 60, row.time_limit_s // 60
        cause = f"its time limit was raised to {raised} min where {held} are held for each task"
    return cause


def _has_run(newest: Attempt) -> bool:
    """Say whether it ran at all: of one that was cancelled before, accounting may give its end for its start."""
    ran = newest.state is AttemptState.RUNNING or newest.elapsed_s > 0 or bool(newest.nodes)
    return ran and newest.started_at is not None


def _is_to_end(seen: Any) -> bool:
    return seen is not None and seen.cancel_requested_at is not None


def _noted(task: int, seen: Any, reason: str, **values: Any) -> TaskChange | None:
    """Keep a task open and say why."""
    values["reason"] = reason[:1000]
    return None if seen is not None and seen.reason == values["reason"] else TaskChange(task, values)


def apply_array(session: Session, known: TaskRows, changes: ArrayChanges, now: datetime) -> None:
    """Write what changed of an array: its tasks, how it stands by them, charges and what is given back."""
    row = changes.row
    ended = {change.task: change.ended for change in changes.tasks if change.settles}
    charges, postings = metered_tasks(session, row, ended, now)
    values = {change.task: change.values for change in changes.tasks}
    for task, charge in charges.items():
        values[task] |= {"settled_at": now, "charged_credits": charge}
    write_tasks(session, row.id, known, values)
    tasks = {task: seen._asdict() for task, seen in known.items()}
    for task, new in values.items():
        tasks[task] = {"state": JobState.QUEUED.value, **tasks.get(task, {}), **new}
    _follow(session, changes, tasks, now)
    post_all(session.connection(), postings, now)  # last: from here on nobody else moves money


def _follow(session: Session, changes: ArrayChanges, tasks: Mapping[int, Mapping[str, Any]], now: datetime) -> None:
    """Bring the job to where its tasks are: running from the first start to the last end."""
    row, state = changes.row, JobState(changes.row.state)
    counts = counted(row, (task["state"] for task in tasks.values()))
    begun = {number: task["started_at"] for number, task in tasks.items() if task.get("started_at")}
    if begun and state is JobState.QUEUED:
        first = min(begun, key=lambda number: (begun[number], number))
        move = Move(row.id, state, JobState.RUNNING, f"task {first} started", {"started_at": begun[first]})
        apply_moves(session, [move], now)
        state = JobState.RUNNING
    if counts["tasks_waiting"] or counts["tasks_running"]:
        change_jobs(session, [(row.id, {**counts, "reason": changes.reason})])
    else:
        apply_moves(session, [_end(row.id, state, tasks, now, counts)], now)


def _end(
    job_id: str, before: JobState, tasks: Mapping[int, Mapping[str, Any]], now: datetime, counts: Mapping[str, int]
) -> Move:
    """Return the move of an array whose tasks have all ended, which settles it."""
    states = [task["state"] for task in tasks.values()]
    after, text = outcome(states), outcome_text(states)
    codes = [task["exit_code"] for task in tasks.values() if task.get("exit_code") is not None]
    values = {
        **counts,
        "reason": None if after is JobState.SUCCEEDED else text,
        "ended_at": max((task["ended_at"] for task in tasks.values() if task.get("ended_at")), default=now),
        "exit_code": max(codes, default=None),
        "settled_at": now,
        "charged_credits": sum(task["charged_credits"] for task in tasks.values()),
    }
    return Move(job_id, before, after, text, values)
