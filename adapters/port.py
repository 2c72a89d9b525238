"""The port: what the broker asks of a site, whatever scheduler runs there.

Times are timezone-aware UTC, durations whole seconds, sizes bytes unless the name says otherwise.
An adapter observes and obeys; it knows nothing of awards, holds or charges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from adapters.errors import Rejected, SiteError, Uncertain, Unreachable

UNLIMITED_S = 1 << 40
"""A time limit that is none; longer than any that a scheduler can be asked for."""


class AttemptState(StrEnum):
    """What a scheduler says of one attempt, in the project's words (docs/glossary.md)."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAILED = "node_failed"
    PREEMPTED = "preempted"
    UNKNOWN = "unknown"
    """A word nobody knows: not an end. The job stays open and an operator is told."""

    @property
    def ended(self) -> bool:
        """Whether the attempt is over."""
        return self not in (AttemptState.QUEUED, AttemptState.RUNNING, AttemptState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job as a site is asked to run it. Everything a person typed in it is data, never shell."""

    name: str
    """Opaque, deterministic and unique in the region: `idf-` and the job's id."""
    account: str
    """The project account (Unix account or namespace) that the job runs as."""
    gpus: int
    """Total over all nodes; 0 for a job without GPU."""
    gpu_type: str
    """The site's own name of the GPU class, such as Slurm's gres type `a100`; empty without GPU."""
    time_limit_s: int
    """Whole minutes."""
    script: bytes = b""
    """The user's script, or empty when `arguments` is a whole command."""
    arguments: tuple[str, ...] = ()
    """The script's arguments, or the command and its arguments when there is no script."""
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    cpus_per_gpu: int | None = None
    cpus: int | None = None
    """Total over all nodes, the same number on each, of a job without GPU."""
    memory_mib: int | None = None
    """Per node."""
    exclusive: bool = False
    """Its nodes run nothing else meanwhile."""
    partition: str | None = None
    deadline: datetime | None = None
    """The award's end: a job that could not start in time is ended by the scheduler itself."""
    snapshot: str | None = None
    """SHA-256 (hex) of a gzipped tar of the user's folder, put there beforehand by `put_snapshot`."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The scheduler took the job under this id."""

    site_job_id: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Proven: no such job is known to the queue nor to the accounting database, and none can still arrive."""


Answer = Accepted | Rejected | Unreachable | Uncertain
Adoption = Accepted | Absent | Unreachable | Uncertain


@dataclass(frozen=True, slots=True)
class Sent:
    """A job whose sending has an unknown outcome."""

    name: str
    account: str
    batch: str
    sent_after: datetime
    """No copy of ours can have been submitted before this time."""


@dataclass(frozen=True, slots=True)
class Known:
    """A job that the site accepted."""

    name: str
    account: str
    site_job_id: str
    submitted_after: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job as the scheduler saw it."""

    source_key: str
    """The source's identity of the attempt, unique for ever: cluster, job id, submit and start or row."""
    site_job_id: str
    name: str
    account: str
    state: AttemptState
    native_state: str
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    elapsed_s: int = 0
    """Suspended time is left out, as Slurm's Elapsed leaves it out."""
    gpus: int | None = None
    """Allocated; None when the source does not tell."""
    gpu_types: Mapping[str, int] = field(default_factory=dict)
    cpus: int | None = None
    """Allocated over all nodes; None when the source does not tell. The same of `memory_mib` and `node_count`."""
    memory_mib: int | None = None
    node_count: int | None = None
    nodes: tuple[str, ...] = ()
    """Their names, as far as the source tells. Whether nobody else could use them, no source tells in every release."""
    time_limit_s: int | None = None
    """`UNLIMITED_S` where the scheduler says that there is none; None when the source does not tell."""
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    """Why it waits or ended, in the scheduler's words; text from a site, to be shown with care."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a site said of the jobs asked about; a job in neither collection could not be learnt."""

    attempts: Mapping[str, tuple[Attempt, ...]]
    """By site job id, oldest attempt first."""
    absent: frozenset[str]
    """Site job ids that both the queue and the accounting database do not know."""
    warnings: tuple[str, ...] = ()
    """What an operator must see: rows that could not be read, unknown states, accounting that is away."""
    runaways: frozenset[str] = frozenset()
    """Site job ids that the queue does not know and the accounting database shows at work: their end was never told."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of a job's log."""

    data: bytes
    next_offset: int
    exists: bool
    """False while the job has written no log yet."""


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What enrolment found out about a site."""

    scheduler: str
    """Name and release, such as `slurm 22.05.8`."""
    cluster: str
    problems: tuple[str, ...]
    """Each a sentence that says what is wrong and what would put it right; empty when fit for use."""


class Scheduler(Protocol):
    """A site's scheduler. Every call is bounded in time and output; every call names its accounts."""

    def submit(self, batch: str, specs: Sequence[JobSpec]) -> Mapping[str, Answer]:
        """Send jobs in one go under a batch id that is used once in a life; one answer per `spec.name`.

        Raises nothing: a fault is the answer of each job that it concerns.
        """
        ...

    def adopt(self, sent: Sequence[Sent]) -> Mapping[str, Adoption]:
        """Find out what became of jobs whose sending was uncertain; one answer per name.

        Burns their batches first: after `Absent`, nothing of that batch can reach the scheduler any more.
        """
        ...

    def observe(self, known: Sequence[Known]) -> Observation:
        """Say how the jobs stand, in one remote command whatever their number.

        Raises:
            Unreachable: the queue did not answer; nothing was learnt.
        """
        ...

    def cancel(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        """Ask for the end of jobs; `Accepted` means that the wish arrived. One answer per name."""
        ...

    def read_log(self, account: str, name: str, offset: int, limit_bytes: int, wait_s: float) -> LogChunk:
        """Return the log from `offset`, waiting up to `wait_s` for something new.

        Raises:
            Unreachable: the site did not answer.
            Rejected: what lies there is no regular file of that account.
        """
        ...

    def put_snapshot(self, account: str, digest: str, archive: Path) -> None:
        """Bring a snapshot to the account, once; a repeat is a no-op.

        Raises:
            Unreachable: it did not arrive; nothing half-written is left under its name.
            Rejected: the bytes do not have that digest, or there is no room.
        """
        ...

    def check(self) -> SiteFacts:
        """Look at the site as enrolment does.

        Raises:
            Unreachable: the site did not answer.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


__all__ = [
    "UNLIMITED_S", "Absent", "Accepted", "Adoption", "Answer", "Attempt", "AttemptState", "JobSpec", "Known",
    "LogChunk", "Observation", "Rejected", "Scheduler", "Sent", "SiteError", "SiteFacts", "Uncertain", "Unreachable",
]  # fmt: skip
