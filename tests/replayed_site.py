"""A busy Slurm site played back: rows as squeue and sacct of 22.05 write them, through the real gateway's functions.

Nothing runs. The fate of each job is drawn when it is submitted; time passes when the test says so.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.port import Accepted, Answer, JobSpec, Known, Observation
from adapters.slurm import gateway
from adapters.slurm.commands import Reply
from adapters.slurm.observation import Observe

CLUSTER = "busy"
MIN_JOB_AGE_S = 300
ENDS = {
    ("COMPLETED", "0:0"): 80,
    ("FAILED", "1:0"): 10,
    ("TIMEOUT", "0:0"): 4,
    ("CANCELLED by 1000", "0:15"): 4,
    ("OUT_OF_MEMORY", "0:125"): 2,
}
"""How jobs end, in per cent of those that are neither preempted nor requeued."""


@dataclass(frozen=True)
class Run:
    """One attempt: when it came, began and ended (seconds since 1970), and how."""

    submitted: int
    started: int
    ended: int
    state: str
    exit_code: str


@dataclass(frozen=True)
class Fate:
    """What becomes of a job, or of one task of an array."""

    job: str
    spec: JobSpec
    runs: tuple[Run, ...]


@dataclass
class ReplayedSite:
    """The part of the port that a day of jobs needs, with the shares of odd fates that the day shall have."""

    now: int
    seed: int
    requeued: float = 0.05
    preempted: float = 0.02
    accounts: Sequence[str] = ()
    home: str = "/home/idf"
    fates: dict[str, Fate] = field(default_factory=dict)
    """By job id; of an array, by the id of each task."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._next_id = 1
        self._open: dict[str, Fate] = {}

    # ── the port ──

    def submit(self, batch: str, specs: Sequence[JobSpec]) -> Mapping[str, Answer]:
        """See the port."""
        answers: dict[str, Answer] = {}
        for spec in specs:
            job, self._next_id = str(self._next_id), self._next_id + 1
            self._take(job, spec)
            answers[spec.name] = Accepted(job)
        return answers

    def observe(self, known: Sequence[Known]) -> Observation:
        """See the port; the request goes through the gateway's own functions, the answer through its own format."""
        command = Observe(known, CLUSTER)
        self._open = {job: fate for job, fate in self._open.items() if fate.runs[-1].ended + MIN_JOB_AGE_S > self.now}
        answer = gateway.observe(command.request, self)  # type: ignore[arg-type]
        answer |= {"queue_fields": gateway.QUEUE_FIELDS, "accounting_fields": gateway.ACCOUNTING_FIELDS}
        lines = b"".join(b"* " + gateway.encode(line) for line in (answer, {"end": True}))
        return command.read(Reply.read(lines))

    # ── what the gateway runs ──

    def run(self, argv: Sequence[str], limit_s: float = 60) -> dict[str, object]:
        """Answer as the site's commands do."""
        told = {"squeue": self._squeue, "sacct": self._sacct, "sdiag": self._sdiag}[argv[0]]
        return {"rc": 0, "out": "".join(f"{line}\n" for line in told(argv)), "err": ""}

    def _squeue(self, _: Sequence[str]) -> Iterator[str]:
        for fate in self._open.values():
            number, run = self._current(fate)
            yield "|".join(
                (
                    fate.job, self._state(run), str(number), fate.spec.account, str(run.submitted), str(run.started),
                    str(run.ended), _clock(max(0, min(self.now, run.ended) - run.started)),
                    _clock(fate.spec.time_limit_s), _tres(fate.spec), "None", "gpu01", self.home, fate.spec.name,
                )
            )  # fmt: skip

    def _sacct(self, argv: Sequence[str]) -> Iterator[str]:
        (wanted,) = (word.removeprefix("--jobs=").split(",") for word in argv if word.startswith("--jobs="))
        for job in wanted:
            yield from self.rows(job)

    def _sdiag(self, _: Sequence[str]) -> Iterator[str]:
        yield "DBD Agent queue size: 0"

    def rows(self, job: str) -> Iterator[str]:
        """Yield sacct's rows of a job as they stand now, each attempt a row."""
        fate = self.fates[job]
        for run in fate.runs:
            if run.submitted > self.now:
                return
            over = run.ended <= self.now
            begun = run.started <= self.now
            yield "|".join(
                (
                    fate.job, self._state(run), fate.spec.account, str(run.submitted),
                    str(run.started) if begun else "Unknown", str(run.ended) if over else "Unknown",
                    str(max(0, min(self.now, run.ended) - run.started)), str(fate.spec.time_limit_s // 60),
                    run.exit_code if over else "0:0", _tres(fate.spec) if begun else "", "None",
                    "gpu01" if begun else "None assigned", self.home, fate.spec.name,
                )
            )  # fmt: skip

    # ── inside ──

    def _take(self, job: str, spec: JobSpec) -> None:
        fate = Fate(job, spec, tuple(self._runs(spec)))
        self.fates[job] = self._open[job] = fate

    def _runs(self, spec: JobSpec) -> Iterator[Run]:
        """Draw a job's attempts: a requeue is a further one, submitted anew when the one before ends."""
        draw = self._random.random()
        at = self.now
        if draw < self.requeued:
            first = self._run(spec, at, self._random.choice(("NODE_FAIL", "PREEMPTED")), "1:0")
            yield first
            at = first.ended + 1
        if self.requeued <= draw < self.requeued + self.preempted:
            yield self._run(spec, at, "PREEMPTED", "0:15")
        else:
            (state, code), *_ = self._random.choices(list(ENDS), list(ENDS.values()))
            yield self._run(spec, at, state, code)

    def _run(self, spec: JobSpec, submitted: int, state: str, exit_code: str) -> Run:
        started = submitted + self._random.randrange(1, 1800)
        elapsed = spec.time_limit_s if state == "TIMEOUT" else self._random.randrange(spec.time_limit_s)
        return Run(submitted, started, started + elapsed, state, exit_code)

    def _current(self, fate: Fate) -> tuple[int, Run]:
        return max((number, run) for number, run in enumerate(fate.runs) if number == 0 or run.submitted <= self.now)

    def _state(self, run: Run) -> str:
        if run.ended <= self.now:
            return run.state
        return "RUNNING" if run.started <= self.now else "PENDING"


def _tres(spec: JobSpec) -> str:
    return f"billing=8,cpu=8,gres/gpu:{spec.gpu_type}={spec.gpus},gres/gpu={spec.gpus},mem=16G,node=1"


def _clock(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock
