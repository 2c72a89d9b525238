"""The port: what the broker asks of a site, whatever scheduler runs there.

Times are timezone-aware UTC, durations whole seconds, sizes bytes unless the name says otherwise.
An adapter observes and obeys; it knows nothing of awards, holds or charges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

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


class AfterKind(StrEnum):
    """Which end of another job a job waits for."""

    OK = "afterok"
    """It succeeded."""
    ANY = "afterany"
    """It ended, however."""
    NOT_OK = "afternotok"
    """It ended, and did not succeed."""


@dataclass(frozen=True, slots=True)
class After:
    """A job of the same site that is known there, or all tasks of an array, and the end that is waited for."""

    kind: AfterKind
    site_job_id: str


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
    array: str | None = None
    """An array job: its tasks in Slurm's words, such as `0-15%4` (adapters.arrays). All the rest is asked for each."""
    after: tuple[After, ...] = ()
    """All of these must have come true before it starts; one that never can ends the job."""
    begin: datetime | None = None
    """It does not start before this time."""
    signal: str | None = None
    """Sent to the user's program alone, such as `USR1`, `signal_s` before the time limit; schedulers may be up to
    a minute early."""
    signal_s: int | None = None
    requeues: int = 0
    """How many further runs the site may give it when a node fails or it is preempted; 0: it runs once."""
    modules: tuple[str, ...] = ()
    """Environment modules of the site, loaded in this order."""
    container: str | None = None
    """An Apptainer image that the program runs in: a path at the site, or a reference with its digest."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """Opaque ids that lead back to the region, by what they are of (`award`, `project`): labels, where it has any."""


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
    tasks: frozenset[int] | None = None
    """Of an array: the tasks that are asked about, as far as their ends are not known yet. None: it is no array."""
    namesakes: frozenset[str] = frozenset()
    """Names of other jobs of ours to which the site gave the same id, as one does that lost its memory."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job, or of one task of an array, as the scheduler saw it."""

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
    task: int | None = None
    """Which task of an array; then `site_job_id` is the array's."""
    expected_start: datetime | None = None
    """When the scheduler expects to start a job that waits; None where it does not say."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a site said of the jobs asked about; a job in neither collection could not be learnt."""

    attempts: Mapping[str, tuple[Attempt, ...]]
    """By job name, oldest attempt first; of an array task by task, of which one that is not named was not learnt."""
    absent: frozenset[str]
    """Names of jobs that both the queue and the accounting database do not know; of one task alone as `idf-1_7`."""
    warnings: tuple[str, ...] = ()
    """What an operator must see: rows that could not be read, unknown states, accounting that is away."""
    runaways: frozenset[str] = frozenset()
    """Names of those that the queue does not know and accounting shows at work: their end was never told."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of a job's log."""

    data: bytes
    next_offset: int
    exists: bool
    """False while the job has written no log yet."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A regular file in a job's output folder."""

    path: str
    """Relative to the folder, parted by `/`: no `..`, no control character, none that differs by case alone."""
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a job's output folder holds."""

    files: tuple[OutputFile, ...]
    """In the order of their paths."""
    left_out: tuple[str, ...] = ()
    """Each a sentence: what lies there and is not listed, and why."""
    exists: bool = True
    """False while the job has made no such folder."""


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """A piece of one output file."""

    data: bytes
    size_bytes: int
    """Of the whole file, as it was read."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a scheduler expects to start a job; None with the reason where it does not say."""

    start: datetime | None
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What enrolment found out about a site."""

    scheduler: str
    """Name and release, such as `slurm 22.05.8`."""
    cluster: str
    problems: tuple[str, ...]
    """Each a sentence that says what is wrong and what would put it right; empty when fit for use."""
    array_size_max: int | None = None
    """Every index of an array's task lies below it (Slurm's MaxArraySize); None where the site does not tell."""


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
        """Ask for the end of jobs; `Accepted` means that the wish arrived. One answer per name.

        One task of an array goes by the name and id that `arrays.task_name` makes: `idf-1_7`, `123_7`. One that
        waits may be absent afterwards, since a scheduler may keep no record of it.
        """
        ...

    def read_log(self, account: str, name: str, offset: int, limit_bytes: int, wait_s: float) -> LogChunk:
        """Return the log from `offset`, waiting up to `wait_s` for something new.

        An array has a log per task, by the name that `arrays.task_name` makes.

        Raises:
            Unreachable: the site did not answer.
            Rejected: what lies there is no regular file of that account.
        """
        ...

    def list_outputs(self, account: str, name: str, tasks: Sequence[int] | None = None) -> Outputs:
        """List the regular files of a job's output folder, as that account; no link is followed.

        Of an array those of the tasks that are named, each path led by its task: `7/model.bin`.

        Raises:
            Unreachable: the site did not answer.
            Rejected: what lies there is no folder of that account.
        """
        ...

    def read_output(
        self, account: str, name: str, path: str, offset: int, limit_bytes: int, task: int | None = None
    ) -> OutputPiece:
        """Return a piece of one file of a job's output folder, or of that of one task of an array.

        Raises:
            Unreachable: the site did not answer.
            Rejected: there is no regular file of that path, or the path is none that is listed.
        """
        ...

    def expected_start(self, spec: JobSpec) -> Forecast:
        """Ask when a job would start if it were sent now; nothing is sent.

        Raises:
            Unreachable: the site did not answer.
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


@dataclass(frozen=True, slots=True)
class SiteEvent:
    """What a part of a site said of a job; its words are the site's."""

    at: datetime
    """The last time, where it was said more than once."""
    reason: str
    message: str
    warning: bool
    count: int


@runtime_checkable
class Teller(Protocol):
    """A scheduler whose site keeps what its parts say of a job."""

    def site_events(self, account: str, name: str) -> Sequence[SiteEvent]:
        """Return what was said of a job lately, oldest first.

        Raises:
            Unreachable: the site did not answer.
        """
        ...


@runtime_checkable
class Keeper(Protocol):
    """A scheduler whose site keeps ended jobs until it is told that they are booked: nothing is lost meanwhile."""

    def kept(self) -> Sequence[Known]:
        """The ended jobs that are kept, as far as the site told; no request is made."""
        ...

    def forget(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        """Let go of jobs that are booked. `Accepted`: nothing keeps them any more. A repeat is a no-op."""
        ...


__all__ = [
    "UNLIMITED_S", "Absent", "Accepted", "Adoption", "After", "AfterKind", "Answer", "Attempt", "AttemptState",
    "Forecast", "JobSpec", "Keeper", "Known", "LogChunk", "Observation", "OutputFile", "OutputPiece", "Outputs",
    "Rejected", "Scheduler", "Sent", "SiteError", "SiteEvent", "SiteFacts", "Teller", "Uncertain", "Unreachable",
]  # fmt: skip
