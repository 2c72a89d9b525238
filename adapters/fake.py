"""The port in memory, with a clock that is moved by hand and faults that are asked for: for tests and demos.

It keeps the port's promises as a real site does: a batch runs once, a closed batch never runs, a job of a
name that is taken waits for ever, and what was not seen is not guessed.
"""

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adapters.arrays import ArrayWrong, parse_array, task_name
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
    """A job, or one task of an array, as the fake site keeps it."""

    spec: JobSpec
    site_job_id: str
    batch: str
    attempts: list[Attempt]
    log: bytes = b""
    outputs: dict[str, bytes] = field(default_factory=dict)
    """By path."""
    task: int | None = None
    at_once: int = 1
    """How many tasks of its array may run at one time."""
    runaway: bool = False
    """Accounting alone shows it, at work."""

    @property
    def name(self) -> str:
        """The name of the job, or of the task."""
        return task_name(self.spec.name, self.task)

    @property
    def site_name(self) -> str:
        """The site's id of the job, or of the task."""
        return task_name(self.site_job_id, self.task)


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
    array_size_max: int = 1001
    """As Slurm's MaxArraySize: every index of a task lies below it."""
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
            busy = {job.name for job in running}  # as with `singleton`, which tasks of an array go without
            tasks = Counter(job.site_job_id for job in running)
            for job in self.jobs.values():
                full = job.name in busy or tasks[job.site_job_id] >= job.at_once
                fits = self._gpus_of(job.spec) <= free and not full
                if job.attempts[-1].state is AttemptState.QUEUED and self._may_start(job) and fits:
                    free -= self._gpus_of(job.spec)
                    busy.add(job.name)
                    tasks[job.site_job_id] += 1
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
            job.attempts.append(self._new_attempt(job.spec, job.site_job_id, job.task))

    def write_log(self, name: str, data: bytes) -> None:
        """Let a job write to its log."""
        with self._lock:
            self._named(name).log += data

    def write_output(self, name: str, path: str, data: bytes) -> None:
        """Let a job write a file into its output folder."""
        with self._lock:
            self._named(name).outputs[path] = data

    def forget(self, name: str) -> None:
        """Take a job, or a task, out of the queue and out of accounting, as if it had never been."""
        with self._lock:
            self.jobs = {key: job for key, job in self.jobs.items() if name not in (job.name, job.spec.name)}

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
            absent: set[str] = set()
            runaways: set[str] = set()
            by_id: dict[str, list[FakeJob]] = defaultdict(list)
            for seen in self.jobs.values():
                by_id[seen.site_job_id].append(seen)
            for job in known:
                own = [j for j in by_id[job.site_job_id] if (j.spec.name, j.spec.account) == (job.name, job.account)]
                told = [j for j in own if job.tasks is None or j.task in job.tasks]
                if self.faults.accounting_away:
                    told = [j for j in told if not j.attempts[-1].state.ended]
                else:
                    absent |= _absent(job, own)
                    runaways |= {seen.name for seen in told if seen.runaway}
                if told:
                    attempts[job.name] = tuple(self._with_elapsed(a) for j in told for a in j.attempts)
            warnings = ("the accounting database did not answer",) if self.faults.accounting_away else ()
            return Observation(attempts, frozenset(absent), warnings, frozenset(runaways))

    def cancel(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        """See the port."""
        with self._lock:
            self.calls.append("cancel")
            if self.faults.away or self.faults.queue_away:
                return {job.name: Unreachable("the fake site is away") for job in known}
            wanted = {job.site_job_id for job in known}
            for key, seen in list(self.jobs.items()):
                newest = seen.attempts[-1].state
                if seen.task is not None and key in wanted and newest is AttemptState.QUEUED:
                    del self.jobs[key]  # as Slurm 22.05: a task that waits leaves its array without a trace
                elif wanted & {key, seen.site_job_id} and not newest.ended:
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

    def list_outputs(self, account: str, name: str, tasks: Sequence[int] | None = None) -> Outputs:
        """See the port."""
        with self._lock:
            files: list[OutputFile] = []
            exists = False
            for task in [None] if tasks is None else tasks:
                job = self._started(account, task_name(name, task))
                exists = exists or job is not None
                above = "" if task is None else f"{task}/"
                its = job.outputs.items() if job else ()
                files += (OutputFile(above + path, len(data), self.now) for path, data in its)
            return Outputs(tuple(sorted(files, key=lambda file: file.path)), exists=exists)

    def read_output(
        self, account: str, name: str, path: str, offset: int, limit_bytes: int, task: int | None = None
    ) -> OutputPiece:
        """See the port."""
        with self._lock:
            job = self._started(account, task_name(name, task))
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
        return SiteFacts("fake 1", self.cluster, (), self.array_size_max)

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
        if any(not self._of(one.site_job_id) for one in spec.after):
            return Unreachable("a job that it runs after has ended a while ago")
        return self._keep(batch, spec)

    def _keep(self, batch: str, spec: JobSpec) -> Answer:
        try:
            array = None if spec.array is None else parse_array(spec.array)
        except ArrayWrong as wrong:
            return Rejected(wrong.detail)
        if array is not None and array.tasks[-1] >= self.array_size_max:
            return Rejected("Invalid job array specification")
        tasks: Sequence[int | None] = [None] if array is None else array.tasks
        at_once = 1 if array is None else array.at_once
        site_job_id, self._next_id = str(self._next_id), self._next_id + len(tasks)
        for task in tasks:
            attempts = [self._new_attempt(spec, site_job_id, task)]
            made = FakeJob(spec, site_job_id, batch, attempts, task=task, at_once=at_once)
            self.jobs[made.site_name] = made
        return Accepted(site_job_id)

    def _adopt(self, sent: Sent) -> Adoption:
        ours = (job for job in self.jobs.values() if (job.spec.name, job.spec.account) == (sent.name, sent.account))
        found = sorted({job.site_job_id for job in ours})
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
        jobs = (job for job in self.jobs.values() if (job.name, job.spec.account) == (name, account))
        return next((job for job in jobs if job.attempts[0].started_at is not None), None)

    def _may_start(self, job: FakeJob) -> bool:
        """Look at its time and at the jobs that it runs after; one that never may run is ended, as Slurm is told to."""
        met = [self._met(one) for one in job.spec.after]
        if False in met:
            self._end(job, AttemptState.CANCELLED, self.now)
        return all(met) and (job.spec.begin is None or self.now >= job.spec.begin)

    def _met(self, after: After) -> bool | None:
        """Say whether another job, an array with all its tasks, ended as is waited for; None while it has not ended."""
        newest = [job.attempts[-1].state for job in self._of(after.site_job_id)]
        if not all(state.ended for state in newest):
            return None
        succeeded = all(state is AttemptState.SUCCEEDED for state in newest)
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

    def _of(self, site_job_id: str) -> list[FakeJob]:
        """Return the job of an id, or all tasks of an array."""
        return [job for job in self.jobs.values() if job.site_job_id == site_job_id]

    def _named(self, name: str) -> FakeJob:
        return next(job for job in self.jobs.values() if job.name == name)

    def _new_attempt(self, spec: JobSpec, site_job_id: str, task: int | None) -> Attempt:
        key = f"{self.cluster}/{task_name(site_job_id, task)}/{int(self.now.timestamp())}"
        return Attempt(key, site_job_id, spec.name, spec.account, AttemptState.QUEUED, "PENDING", self.now,
                       time_limit_s=spec.time_limit_s, task=task)  # fmt: skip

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


def _absent(job: Known, own: Sequence[FakeJob]) -> set[str]:
    """Return what is not there: the job, or some tasks of an array."""
    if not own:
        return {job.name}
    return {task_name(job.name, task) for task in (job.tasks or set()) - {seen.task for seen in own}}
