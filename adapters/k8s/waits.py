"""What a job waits for that Kubernetes knows nothing of: a time, and the ends of other jobs. Pure.

Such a Job is sent suspended and let go when it is observed and all of it has come true.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum

from adapters.k8s.seen import SeenJob
from adapters.port import AfterKind


class Wait(Enum):
    """How it stands with what a job waits for."""

    YET = "yet"
    OVER = "over"
    NEVER = "never"


def wait_of(job: SeenJob, look: Callable[[str], SeenJob | None], now: datetime) -> Wait:
    """Say whether a job may start now, later, or never."""
    states = [_after(AfterKind(kind), look(uid)) for kind, uid in job.after]
    if Wait.NEVER in states:
        return Wait.NEVER
    begun = job.begin is None or job.begin <= now
    return Wait.OVER if begun and all(state is Wait.OVER for state in states) else Wait.YET


def _after(kind: AfterKind, other: SeenJob | None) -> Wait:
    """A job that is gone ended somehow, nobody knows how."""
    if other is not None and not other.finished and other.cancelled_at is None:
        return Wait.YET
    if kind is AfterKind.ANY:
        return Wait.OVER
    if other is None:
        return Wait.NEVER
    succeeded = other.finished == "Complete"
    return Wait.OVER if succeeded is (kind is AfterKind.OK) else Wait.NEVER
