"""Tasks of array jobs: the rows of those that have a state of their own, and how the job stands by them.

A task without a row waits. So an array of a thousand tasks costs one row until they begin.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Table, bindparam, insert, select, update
from sqlmodel import Session

from adapters.arrays import array_words, parse_array
from broker.lifecycle import ENDED, JobState
from broker.models import JobTask

job_tasks: Table = JobTask.__table__  # type: ignore[attr-defined]
TaskRows = Mapping[int, Row[Any]]
"""The rows of one job's tasks, by task."""

WORST_FIRST = (
    *(JobState.FAILED, JobState.OUT_OF_MEMORY, JobState.TIMED_OUT, JobState.NODE_FAILED, JobState.PREEMPTED),
    *(JobState.LOST, JobState.CANCELLED, JobState.SUCCEEDED),
)
"""An array ends in the first of these states that one of its tasks ended in."""
_COLUMNS = tuple(job_tasks.c)
_EMPTY = {column.name: None for column in _COLUMNS}


def tasks_of(row: Any) -> tuple[int, ...]:
    """Return the numbers of an array's tasks, ascending."""
    return parse_array(row.array_words).tasks


def rows_of_tasks(session: Session, job_ids: Sequence[str]) -> dict[str, dict[int, Row[Any]]]:
    """Return the rows that tasks have, by job and task; each job asked about has an entry."""
    found: dict[str, dict[int, Row[Any]]] = {id_: {} for id_ in job_ids}
    if job_ids:
        for row in session.execute(select(*_COLUMNS).where(job_tasks.c.job_id.in_(job_ids))):
            found[row.job_id][row.task] = row
    return found


def open_tasks(row: Any, known: TaskRows) -> frozenset[int]:
    """Return the tasks of an array that are not settled yet."""
    return frozenset(task for task in tasks_of(row) if task not in known or known[task].settled_at is None)


def words_left(row: Any, known: TaskRows) -> str | None:
    """Return the tasks of an array that are to be sent, in Slurm's words: without those cancelled meanwhile."""
    if row.array_words is None or not known:
        words: str | None = row.array_words
        return words
    return array_words(sorted(open_tasks(row, known)), parse_array(row.array_words).limit)


def write_tasks(session: Session, job_id: str, known: TaskRows, values: Mapping[int, Mapping[str, Any]]) -> None:
    """Write columns of tasks, whose rows the caller has read under the job's lock; a row is made where none is."""
    new = [
        {**_EMPTY, "state": JobState.QUEUED.value, **columns, "job_id": job_id, "task": task}
        for task, columns in values.items()
        if task not in known
    ]
    if new:
        session.connection().execute(insert(job_tasks), new)
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for task, columns in values.items():
        if task in known and columns:
            row = {f"new_{name}": value for name, value in columns.items()}
            by_columns.setdefault(tuple(sorted(columns)), []).append({"of_task": task, **row})
    for names, rows in by_columns.items():
        changed = {name: bindparam(f"new_{name}", type_=job_tasks.c[name].type) for name in names}
        one = update(job_tasks).where(job_tasks.c.job_id == job_id, job_tasks.c.task == bindparam("of_task"))
        session.connection().execute(one.values(changed), rows)


def counted(row: Any, states: Iterable[str]) -> dict[str, int]:
    """Return what an array's row says of its tasks, from the states of those that have a row."""
    by_state = Counter(states)
    running = by_state[JobState.RUNNING.value]
    ended = sum(by_state[state.value] for state in ENDED)
    waiting = row.tasks - running - ended
    before = _at_once(row, row.tasks_waiting + row.tasks_running)
    each = row.gpus_taken // before if before else 0
    return {
        "tasks_waiting": waiting,
        "tasks_running": running,
        "gpus_taken": max(row.gpus, each * _at_once(row, waiting + running)),
    }


def _at_once(row: Any, unfinished: int) -> int:
    """Return how many of an array's unfinished tasks may run at one time."""
    return min(unfinished, parse_array(row.array_words).at_once)


def by_state(words: str, job_state: str, known: TaskRows) -> dict[str, int]:
    """Return how many tasks of an array are in each state."""
    states = Counter(state_of(job_state, known.get(task)) for task in parse_array(words).tasks)
    return {state.value: states[state] for state in JobState if states[state]}


def state_of(job_state: str, task_row: Any) -> JobState:
    """Return the state of one task: as its row says; one without a row, or that waits, stands as its job, or waits."""
    state = JobState.QUEUED if task_row is None else JobState(task_row.state)
    return JobState(job_state) if state is JobState.QUEUED and job_state != JobState.RUNNING.value else state


def outcome(states: Iterable[str]) -> JobState:
    """Return the state that an array ends in, from those of its tasks."""
    seen = set(states)
    return next(state for state in WORST_FIRST if state.value in seen)


def outcome_text(states: Iterable[str]) -> str:
    """Word how an array's tasks ended: `14 succeeded, 1 failed, 1 cancelled`."""
    counts = Counter(states)
    return ", ".join(f"{counts[state.value]} {state.value}" for state in reversed(WORST_FIRST) if counts[state.value])
