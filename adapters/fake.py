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
    After,
    AfterKind,
    Answer,
    Attempt,
    AttemptState,
    Forecast,
    JobSpec,
    Known,
    LogChunk,
    Observation,
    OutputFile,
    OutputPiece,
    Outputs,
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
    outputs: dict[str, bytes] = field(default_factory=dict)
    """By path."""


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
                if newest.state is AttemptState.RUNNING and self.now >= self._limit_of(job):
                    self._end(job, AttemptState.TIMED_OUT, self._limit_of(job))
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
                if job.attempts[-1].state is AttemptState.QUEUED and self._may_start(job) and fits:
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

    def write_output(self, name: str, path: str, data: bytes) -> None:
        """Let a job write a file into its output folder."""
        with self._lock:
            self._named(name).outputs[path] = data

    def forget(self, name: str) -> None:
        """Take a job out of the queue and out of accounting, as if it had never been."""
        with self._lock:
            del self.jobs[self._named(name).site_job_id]

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
            for job in known:
                seen = self.jobs.get(job.site_job_id)
                ended = seen is not None and seen.attempts[-1].state.ended
                if self.faults.accounting_away and (seen is None or ended):
                    continue
                if seen is None or (seen.spec.name, seen.spec.account) != (job.name, job.account):
                    absent.add(job.site_job_id)
                else:
                    attempts[job.site_job_id] = tuple(map(self._with_elapsed, seen.attempts))
            warnings = ("the accounting database did not answer",) if self.faults.accounting_away else ()
            return Observation(attempts, frozenset(absent), warnings)

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
            job = self._started(account, name)
            data = job.log[offset : offset + limit_bytes] if job else b""
            return LogChunk(data, offset + len(data), exists=job is not None)

    def list_outputs(self, account: str, name: str) -> Outputs:
        """See the port."""
        with self._lock:
            job = self._started(account, name)
            if job is None:
                return Outputs((), exists=False)
            files = (OutputFile(path, len(data), self.now) for path, data in sorted(job.outputs.items()))
            return Outputs(tuple(files))

    def read_output(self, account: str, name: str, path: str, offset: int, limit_bytes: int) -> OutputPiece:
        """See the port."""
        with self._lock:
            job = self._started(account, name)
            if job is None or path not in job.outputs:
                raise Rejected("there is no such file")
            data = job.outputs[path]
            return OutputPiece(data[offset : offset + limit_bytes], len(data))

    def expected_start(self, spec: JobSpec) -> Forecast:
        """See the port: now where there is room, else when the running jobs reach their time limits, one by one."""
        with self._lock:
            if self.faults.away or self.faults.queue_away:
                raise Unreachable("the fake site is away")
            if spec.gpus > self.gpus_total:
                return Forecast(None, "the scheduler gave no time: Requested node configuration is not available")
            return Forecast(max(self._room_at(self._gpus_of(spec)), spec.begin or self.now))

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
        if any(one.site_job_id not in self.jobs for one in spec.after):
            return Unreachable("a job that it runs after has ended a while ago")
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

    def _started(self, account: str, name: str) -> FakeJob | None:
        if self.faults.away:
            raise Unreachable("the fake site is away")
        jobs = (job for job in self.jobs.values() if (job.spec.name, job.spec.account) == (name, account))
        return next((job for job in jobs if job.attempts[0].started_at is not None), None)

    def _may_start(self, job: FakeJob) -> bool:
        """Look at its time and at the jobs that it runs after; one that never may run is ended, as Slurm is told to."""
        met = [self._met(one) for one in job.spec.after]
        if False in met:
            self._end(job, AttemptState.CANCELLED, self.now)
        return all(met) and (job.spec.begin is None or self.now >= job.spec.begin)

    def _met(self, after: After) -> bool | None:
        """Say whether another job ended as is waited for; None while it has not ended."""
        newest = self.jobs[after.site_job_id].attempts[-1]
        if not newest.state.ended:
            return None
        succeeded = newest.state is AttemptState.SUCCEEDED
        return {AfterKind.OK: succeeded, AfterKind.ANY: True, AfterKind.NOT_OK: not succeeded}[after.kind]

    def _limit_of(self, job: FakeJob) -> datetime:
        """Return when a running job reaches its time limit."""
        started_at = job.attempts[-1].started_at or self.now
        return started_at + timedelta(seconds=job.spec.time_limit_s)

    def _room_at(self, gpus: int) -> datetime:
        """Return when so many GPUs are free if the running jobs take all of their time, and the waiting ones none."""
        running = [job for job in self.jobs.values() if job.attempts[-1].state is AttemptState.RUNNING]
        free = self.gpus_total - sum(self._gpus_of(job.spec) for job in running)
        at = self.now
        for job in sorted(running, key=self._limit_of):
            if free >= gpus:
                break
            free, at = free + self._gpus_of(job.spec), self._limit_of(job)
        return at

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
