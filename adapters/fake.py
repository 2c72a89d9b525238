"""The port in memory, with a clock that is moved by hand and faults that are asked for: for tests and demos.

It keeps the port's promises as a real site does: a batch runs once, a closed batch never runs, a job of a
name that is taken waits for ever, and what was not seen is not guessed.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adapters.errors import Rejected, Uncertain, Unreachable
from adapters.port import (
    Absent,
    Accepted,
    Adoption,
    Answer,
    Attempt,
    AttemptState,
    JobSpec,
    Known,
    LogChunk,
    Observation,
    Sent,
    SiteFacts,
)

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


@dataclass
class FakeJob:
    """A job as the fake site keeps it."""

    spec: JobSpec
    site_job_id: str
    batch: str
    attempts: list[Attempt]
    log: bytes = b""
    runaway: bool = False
    """Accounting alone shows it, at work."""


@dataclass
class Faults:
    """What goes wrong until it is taken back."""

    away: bool = False
    """Nothing reaches the site."""
    queue_away: bool = False
    accounting_away: bool = False
    cut_after: int | None = None
    """The next submission is cut after so many jobs; what was taken by then is there, no answer arrives."""
    refuse: str = ""
    """Every job is refused with this reason."""


@dataclass
class FakeScheduler:
    """A site with room for `gpus_total` GPUs; jobs start in order and end when told, or at their time limit."""

    cluster: str = "fake"
    gpus_total: int = 8
    gpus_per_node: int = 4
    cpus_per_node: int = 32
    memory_mib_per_cpu: int = 256
    """Given where a job names no memory, as Slurm's DefMemPerCPU."""
    accounts: frozenset[str] | None = None
    """The project accounts that exist; None: any."""
    now: datetime = START
    faults: Faults = field(default_factory=Faults)
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    """By site job id."""
    snapshots: dict[tuple[str, str], bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._batches: dict[str, str] = {}
        self._next_id = 1

    # ── what a test does to the site ──

    def advance(self, seconds: float) -> None:
        """Let time pass: waiting jobs start while there is room, jobs at their time limit end."""
        with self._lock:
            self.now += timedelta(seconds=seconds)
            for job in self.jobs.values():
                newest = job.attempts[-1]
                limit = timedelta(seconds=job.spec.time_limit_s)
                if newest.state is AttemptState.RUNNING and newest.started_at and self.now - newest.started_at >= limit:
                    self._end(job, AttemptState.TIMED_OUT, newest.started_at + limit)
                elif newest.state is AttemptState.QUEUED and job.spec.deadline and self.now >= job.spec.deadline:
                    self._end(job, AttemptState.CANCELLED, job.spec.deadline)
            self.start_waiting()

    def start_waiting(self) -> None:
        """Start queued jobs, oldest first, while there is room."""
        with self._lock:
            running = [job for job in self.jobs.values() if job.attempts[-1].state is AttemptState.RUNNING]
            free = self.gpus_total - sum(self._gpus_of(job.spec) for job in running)
            busy = {job.spec.name for job in running}
            for job in self.jobs.values():
                fits = self._gpus_of(job.spec) <= free and job.spec.name not in busy
                if job.attempts[-1].state is AttemptState.QUEUED and fits:
                    free -= self._gpus_of(job.spec)
                    busy.add(job.spec.name)
                    self._change(job, state=AttemptState.RUNNING, native_state="RUNNING", started_at=self.now,
                                 **self._allocated(job.spec))  # fmt: skip

    def finish(self, name: str, state: AttemptState = AttemptState.SUCCEEDED, exit_code: int = 0) -> None:
        """End a running job now."""
        with self._lock:
            job = self._named(name)
            self._end(job, state, self.now)
            self._change(job, exit_code=exit_code)

    def requeue(self, name: str) -> None:
        """Take a running job off its nodes and put it back into the queue: a second attempt."""
        with self._lock:
            job = self._named(name)
            self._end(job, AttemptState.PREEMPTED, self.now)
            self.now += timedelta(seconds=1)
            job.attempts.append(self._new_attempt(job.spec, job.site_job_id))

    def write_log(self, name: str, data: bytes) -> None:
        """Let a job write to its log."""
        with self._lock:
            self._named(name).log += data

    def forget(self, name: str) -> None:
        """Take a job out of the queue and out of accounting, as if it had never been."""
        with self._lock:
            del self.jobs[self._named(name).site_job_id]

    def set_limit(self, name: str, time_limit_s: int) -> None:
        """Change a job's time limit behind the broker's back."""
        with self._lock:
            job = self._named(name)
            job.spec = replace(job.spec, time_limit_s=time_limit_s)
            self._change(job, time_limit_s=time_limit_s)

    def lose_end(self, name: str) -> None:
        """Let the queue forget a running job whose end accounting is never told: a runaway."""
        with self._lock:
            self._named(name).runaway = True

    # ── the port ──

    def submit(self, batch: str, specs: Sequence[JobSpec]) -> Mapping[str, Answer]:
        """See the port."""
        with self._lock:
            self.calls.append("submit")
            if self.faults.away or self.faults.queue_away:
                return {spec.name: Unreachable("the fake site is away") for spec in specs}
            if batch in self._batches:
                return {spec.name: Uncertain("this batch was begun or closed before") for spec in specs}
            self._batches[batch] = "begun"
            cut_after, self.faults.cut_after = self.faults.cut_after, None
            answers = {spec.name: self._take(batch, spec) for spec in specs[:cut_after]}
            if cut_after is None:
                return answers
            return {spec.name: Uncertain("the connection broke before the answer came") for spec in specs}

    def adopt(self, sent: Sequence[Sent]) -> Mapping[str, Adoption]:
        """See the port."""
        with self._lock:
            self.calls.append("adopt")
            if self.faults.away:
                return {job.name: Unreachable("the fake site is away") for job in sent}
            for job in sent:
                self._batches[job.batch] = "closed"
            return {job.name: self._adopt(job) for job in sent}

    def observe(self, known: Sequence[Known]) -> Observation:
        """See the port."""
        with self._lock:
            self.calls.append("observe")
            if self.faults.away or self.faults.queue_away:
                raise Unreachable("the fake site is away")
            attempts: dict[str, tuple[Attempt, ...]] = {}
            absent = set()
            runaways = set()
            for job in known:
                seen = self.jobs.get(job.site_job_id)
                ended = seen is not None and seen.attempts[-1].state.ended
                if self.faults.accounting_away and (seen is None or ended):
                    continue
                if seen is None or (seen.spec.name, seen.spec.account) != (job.name, job.account):
                    absent.add(job.site_job_id)
                else:
                    attempts[job.site_job_id] = tuple(map(self._with_elapsed, seen.attempts))
                    if seen.runaway and not self.faults.accounting_away:
                        runaways.add(job.site_job_id)
            warnings = ("the accounting database did not answer",) if self.faults.accounting_away else ()
            return Observation(attempts, frozenset(absent), warnings, frozenset(runaways))

    def cancel(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        """See the port."""
        with self._lock:
            self.calls.append("cancel")
            if self.faults.away or self.faults.queue_away:
                return {job.name: Unreachable("the fake site is away") for job in known}
            for job in known:
                seen = self.jobs.get(job.site_job_id)
                if seen is not None and not seen.attempts[-1].state.ended:
                    self._end(seen, AttemptState.CANCELLED, self.now)
            return {job.name: Accepted(job.site_job_id) for job in known}

    def read_log(self, account: str, name: str, offset: int, limit_bytes: int, wait_s: float) -> LogChunk:
        """See the port; it never waits."""
        with self._lock:
            if self.faults.away:
                raise Unreachable("the fake site is away")
            jobs = [job for job in self.jobs.values() if (job.spec.name, job.spec.account) == (name, account)]
            started = [job for job in jobs if job.attempts[0].started_at is not None]
            data = started[0].log[offset : offset + limit_bytes] if started else b""
            return LogChunk(data, offset + len(data), exists=bool(started))

    def put_snapshot(self, account: str, digest: str, archive: Path) -> None:
        """See the port."""
        with self._lock:
            if self.faults.away:
                raise Unreachable("the fake site is away")
            data = archive.read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise Rejected("the snapshot's bytes do not have the digest that was promised")
            self.snapshots[account, digest] = data

    def check(self) -> SiteFacts:
        """See the port."""
        if self.faults.away:
            raise Unreachable("the fake site is away")
        return SiteFacts("fake 1", self.cluster, ())

    def close(self) -> None:
        """See the port."""

    # ── inside ──

    def _take(self, batch: str, spec: JobSpec) -> Answer:
        if self.faults.refuse:
            return Rejected(self.faults.refuse)
        if self.accounts is not None and spec.account not in self.accounts:
            return Unreachable("the site's gateway refused: not an account of this site")
        if spec.gpus > self.gpus_total or (spec.cpus or 0) > spec.nodes * self.cpus_per_node:
            return Rejected("Requested node configuration is not available")
        site_job_id, self._next_id = str(self._next_id), self._next_id + 1
        self.jobs[site_job_id] = FakeJob(spec, site_job_id, batch, [self._new_attempt(spec, site_job_id)])
        return Accepted(site_job_id)

    def _adopt(self, sent: Sent) -> Adoption:
        found = [i for i, job in self.jobs.items() if (job.spec.name, job.spec.account) == (sent.name, sent.account)]
        if len(found) > 1:
            return Uncertain(f"several jobs bear the name {sent.name}")
        if found:
            return Accepted(found[0])
        if self.faults.queue_away or self.faults.accounting_away:
            return Unreachable("the accounting database did not answer")
        return Absent()

    def _named(self, name: str) -> FakeJob:
        return next(job for job in self.jobs.values() if job.spec.name == name)

    def _new_attempt(self, spec: JobSpec, site_job_id: str) -> Attempt:
        key = f"{self.cluster}/{site_job_id}/{int(self.now.timestamp())}"
        return Attempt(key, site_job_id, spec.name, spec.account, AttemptState.QUEUED, "PENDING", self.now,
                       time_limit_s=spec.time_limit_s)  # fmt: skip

    def _gpus_of(self, spec: JobSpec) -> int:
        """Slurm 22.05 gives a job that is alone on its nodes all their GPUs, and says so in AllocTRES."""
        return max(spec.gpus, self.gpus_per_node * spec.nodes) if spec.exclusive else spec.gpus

    def _allocated(self, spec: JobSpec) -> dict[str, object]:
        """Give what was asked for, the defaults of the site where nothing was, and whole nodes where alone."""
        cpus = spec.cpus or (spec.cpus_per_gpu or 0) * spec.gpus or spec.nodes
        memory_mib = (spec.memory_mib or 0) * spec.nodes or cpus * self.memory_mib_per_cpu
        return {
            "gpus": self._gpus_of(spec) or None,
            "gpu_types": {spec.gpu_type: self._gpus_of(spec)} if spec.gpus else {},
            "cpus": self.cpus_per_node * spec.nodes if spec.exclusive else cpus,
            "memory_mib": memory_mib,
            "node_count": spec.nodes,
        }

    def _with_elapsed(self, attempt: Attempt) -> Attempt:
        if attempt.started_at is None:
            return attempt
        return replace(attempt, elapsed_s=int(((attempt.ended_at or self.now) - attempt.started_at).total_seconds()))

    def _end(self, job: FakeJob, state: AttemptState, at: datetime) -> None:
        self._change(job, state=state, native_state=state.value.upper(), ended_at=at)

    def _change(self, job: FakeJob, **changes: object) -> None:
        make: Callable[..., Attempt] = replace
        job.attempts[-1] = make(job.attempts[-1], **changes)
