"""The one way in which a job's state is changed: a legal move, written with its event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Table, bindparam, insert, update
from sqlmodel import Session

from broker.lifecycle import JobState, is_legal
from broker.models import Job, JobEvent

jobs: Table = Job.__table__  # type: ignore[attr-defined]
events: Table = JobEvent.__table__  # type: ignore[attr-defined]

CAUSE_LENGTH_MAX = 1000


class IllegalMove(Exception):
    """A move that the life of a job does not have: a defect of ours, never written."""


@dataclass(frozen=True, slots=True)
class Move:
    """From one state to another, why, and what else of the job's row changes with it."""

    job_id: str
    before: JobState
    after: JobState
    cause: str
    changes: Mapping[str, Any] = field(default_factory=dict)


def event_row(job_id: str, state: JobState, cause: str, at: datetime) -> dict[str, Any]:
    """Return the row of one event."""
    return {"job_id": job_id, "at": at, "state": state.value, "cause": cause[:CAUSE_LENGTH_MAX]}


def apply_moves(session: Session, moves: Sequence[Move], at: datetime) -> None:
    """Write moves of jobs whose rows the caller has read inside this very write.

    Raises:
        IllegalMove: nothing of the moves is written.
    """
    for move in moves:
        if not is_legal(move.before, move.after):
            raise IllegalMove(f"{move.job_id}: {move.before} → {move.after}")
    _update(session, ((m.job_id, {**m.changes, "state": m.after.value}) for m in moves))
    _insert(session, [event_row(m.job_id, m.after, m.cause, at) for m in moves])


def change_jobs(session: Session, changes: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Change other columns of jobs than their state."""
    _update(session, changes)


def _update(session: Session, changes: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Write rows in as few statements as there are sets of columns."""
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for job_id, values in changes:
        row = {f"new_{name}": value for name, value in values.items()}
        by_columns.setdefault(tuple(sorted(values)), []).append({"key": job_id, **row})
    for columns, rows in by_columns.items():
        values = {name: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in columns}
        session.connection().execute(update(jobs).where(jobs.c.id == bindparam("key")).values(values), rows)


def _insert(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        session.connection().execute(insert(events), rows)
