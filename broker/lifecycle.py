"""The states of a job and the moves between them: a pure function says which are legal."""

from enum import StrEnum


class JobState(StrEnum):
    """One word per state, everywhere (docs/glossary.md). That a job is settled is a date, not a state."""

    HELD = "held"
    DISPATCHING = "dispatching"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAILED = "node_failed"
    PREEMPTED = "preempted"
    LOST = "lost"


_AT_SITE = frozenset({JobState.QUEUED, JobState.RUNNING})
ENDED = frozenset(JobState) - _AT_SITE - {JobState.HELD, JobState.DISPATCHING}

_MOVES: dict[JobState, frozenset[JobState]] = {
    # Cancelled from `held`: by the engineer, or because the award ended; failed: the scheduler rejected it.
    JobState.HELD: frozenset({JobState.DISPATCHING, JobState.CANCELLED}),
    # Back to `held`: nothing was sent. Any state of a site: adoption found it there.
    JobState.DISPATCHING: frozenset({JobState.HELD, JobState.QUEUED, JobState.FAILED}),
    JobState.QUEUED: ENDED | {JobState.RUNNING},
    # Back to `queued`: a requeue, which makes a further attempt.
    JobState.RUNNING: ENDED | {JobState.QUEUED},
    # A preempted or failed attempt may be followed by a requeue that was not seen at once.
    **{state: frozenset() for state in ENDED},
}


def is_legal(before: JobState, after: JobState) -> bool:
    """Say whether a job may go from one state to another in a single move."""
    return after in _MOVES[before]
