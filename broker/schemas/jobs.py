"""Jobs, their plans and snapshots."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints, field_validator, model_validator

from adapters.arrays import ArrayWrong, parse_array
from broker.lifecycle import JobState
from broker.schemas.base import (
    ARGUMENT_BYTES_MAX,
    CPUS_MAX,
    ENVIRONMENT_BYTES_MAX,
    GPUS_MAX,
    SCRIPT_BYTES_MAX,
    TIME_LIMIT_S_MAX,
    Digest,
    EnvironmentName,
    GpuClassName,
    Id,
    Image,
    Label,
    ModuleName,
    Schema,
    SiteChoice,
    Slug,
    Text,
)
from broker.schemas.refunds import RefundOut, Worth

MEMORY_MIB_MAX = 64 * 1024 * 1024
_HETEROGENEOUS = re.compile(r"#SBATCH\s+(hetjob|packjob)\b|#SBATCH\b.*--(het|pack)-group", re.IGNORECASE)
_LAUNCHERS = frozenset({"srun", "sbatch", "salloc"})


class AfterIn(Schema):
    """Another job of the same project, and the end of it that a job waits for."""

    job: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}(_[0-9]{1,9})?$")]
    """Its id; of an array all tasks are waited for, and one task (`ID_7`) is refused."""
    kind: Literal["afterok", "afterany", "afternotok"] = "afterok"
    """It succeeded; it ended; it ended and did not succeed."""


class JobIn(Schema):
    """What an engineer submits: a script with arguments, or a command."""

    project: Slug | None = None
    """May be left out by a member of one project only."""
    award: Id | None = None
    site: Slug | None = None
    name: Label | None = None
    gpus: int = Field(default=1, ge=0, le=GPUS_MAX)
    """Over all nodes; 0 where a site has a rate for jobs without GPU."""
    gpu_class: GpuClassName | None = None
    smallest_gpu: bool = False
    """Take the class of least weight (`submit --try`)."""
    nodes: int = Field(default=1, ge=1, le=1024)
    cpus_per_gpu: int | None = Field(default=None, ge=1, le=1024)
    cpus: int | None = Field(default=None, ge=1, le=CPUS_MAX)
    """Over all nodes, the same number on each; only without GPU."""
    exclusive: bool = False
    """Whole nodes, which are counted whole."""
    memory_mib: int | None = Field(default=None, ge=1, le=MEMORY_MIB_MAX)
    """Per node."""
    time_limit_s: int | None = Field(default=None, ge=60, le=TIME_LIMIT_S_MAX)
    """Rounded up to whole minutes; the programme's default when left out."""
    environment: dict[EnvironmentName, Text] = Field(default={})
    script: Text | None = None
    arguments: list[Text] = Field(default=[])
    snapshot: Digest | None = None
    """Digest of a folder sent before by PUT /v1/snapshots/{digest}."""
    array: str | None = Field(default=None, max_length=1000, examples=["0-15%4"])
    """Tasks in Slurm's words: `0-15`, `1,3,5-9:2`, `%4` behind them for at most four at a time. Each is a run of the
    script, with its number in SLURM_ARRAY_TASK_ID; all sizes and the time limit are those of one."""
    memory_per_gpu_mib: int | None = Field(default=None, ge=1, le=MEMORY_MIB_MAX)
    """Instead of `memory_mib`."""
    after: list[AfterIn] = Field(default=[], max_length=16)
    """All of these must have come true before it starts; when one never can, it is cancelled."""
    begin_at: AwareDatetime | None = None
    """It does not start before."""
    signal: Literal["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT"] | None = None
    """Sent to the script or command `signal_s` before the time limit; `USR1` when only the time is given."""
    signal_s: int | None = Field(default=None, ge=1, le=65535)
    requeue: bool | None = None
    """Whether the site may run it again after a failed node or a preemption: by its policy when left out."""
    named_environment: Slug | None = None
    """One that the site offers: `GET /v1/environments`."""
    modules: list[ModuleName] = Field(default=[], max_length=32)
    """Environment modules of the site, loaded in this order, after those of the named environment."""
    container: Image | None = None
    """The Apptainer image that it runs in, where the site offers that."""

    @field_validator("array")
    @classmethod
    def _names_tasks(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                parse_array(value)
        except ArrayWrong as wrong:
            raise ValueError(f"{wrong.detail}: {wrong.remedy}") from wrong
        return value

    @model_validator(mode="after")
    def _has_one_part(self) -> "JobIn":
        for number, line in enumerate((self.script or "").split("\n"), start=1):
            if _HETEROGENEOUS.match(line):
                where = f"(hetjob, line {number} of the script)"
                raise ValueError(f"a heterogeneous job {where} is not taken: submit its parts as jobs")
            if line.strip() and not line.lstrip().startswith("#"):
                break  # sbatch reads no further either
        launcher = self.script is None and self.arguments and self.arguments[0].rpartition("/")[2] in _LAUNCHERS
        if launcher and any(word == ":" or word.startswith(("--het-group", "--pack-group")) for word in self.arguments):
            raise ValueError("a heterogeneous job (--het-group, or parts after ':') is not taken: submit its parts")
        return self

    @model_validator(mode="after")
    def _has_its_signal(self) -> "JobIn":
        if self.signal is not None and self.signal_s is None:
            raise ValueError("a signal needs signal_s: how many seconds before the time limit it is sent")
        if self.signal is None and self.signal_s is not None:
            self.signal = "USR1"
        if self.memory_per_gpu_mib is not None and (self.memory_mib is not None or self.gpus == 0):
            raise ValueError("memory_per_gpu_mib goes with GPUs and without memory_mib: use one of them")
        if len({one.job for one in self.after}) < len(self.after):
            raise ValueError("a job is named twice in after: name each once")
        return self

    @property
    def memory_per_node_mib(self) -> int | None:
        """Memory asked for on each node, however it was said; rounded up where GPUs are not shared evenly."""
        if self.memory_per_gpu_mib is None:
            return self.memory_mib
        return -(-self.memory_per_gpu_mib * self.gpus // self.nodes)

    @model_validator(mode="after")
    def _is_runnable_and_bounded(self) -> "JobIn":
        if self.script is None and not self.arguments:
            raise ValueError("a job needs a script or a command")
        if self.script is not None and not self.script.strip():
            raise ValueError("the script is empty")
        if self.script is not None and len(self.script.encode()) > SCRIPT_BYTES_MAX:
            raise ValueError(f"a script may have at most {SCRIPT_BYTES_MAX} bytes; send more with a snapshot")
        if sum(len(argument.encode()) for argument in self.arguments) > ARGUMENT_BYTES_MAX:
            raise ValueError(f"arguments may have at most {ARGUMENT_BYTES_MAX} bytes together")
        if sum(len(k) + len(v.encode()) for k, v in self.environment.items()) > ENVIRONMENT_BYTES_MAX:
            raise ValueError(f"the environment may have at most {ENVIRONMENT_BYTES_MAX} bytes")
        return self

    @model_validator(mode="after")
    def _has_gpus_or_cpus(self) -> "JobIn":
        if self.gpus == 0:
            if self.gpu_class is not None or self.smallest_gpu or self.cpus_per_gpu is not None:
                raise ValueError("a job without GPU goes without gpu_class, smallest_gpu and cpus_per_gpu: use cpus")
            if self.cpus is not None and self.cpus % self.nodes:
                raise ValueError("each node has the same number of CPUs: cpus must be a multiple of nodes")
        elif self.cpus is not None:
            raise ValueError("cpus is for jobs without GPU (gpus 0): use cpus_per_gpu")
        elif self.nodes > self.gpus:
            raise ValueError("a job has at least one GPU on each node: gpus must not be below nodes")
        return self


class PlanOut(BaseModel):
    """What would happen to a submission: where it would run, what it would hold and of which award."""

    site: str
    project: str
    award: str
    gpu_class: str
    gpus: int
    cpus: int | None
    """Over all nodes; None where they are not counted and nobody named any."""
    memory_mib: int | None
    """Per node; None likewise."""
    nodes: int
    exclusive: bool
    partition: str | None
    time_limit_s: int
    kill_grace_s: int
    weight_thousandths: int
    """Of one GPU, or of one CPU where the job has no GPU."""
    charging_rule: str | None
    """None: no rule was entered for the site, and GPUs alone are counted."""
    rate_credits_per_s: int
    sum: list[str]
    """What is counted and what comes of it, line by line."""
    array: str | None
    tasks: int
    """Of an array; 1 of another job. Rate and time limit are those of one, the hold is that of all."""
    held_credits: int
    available_credits: int
    """Of that award, before the hold."""
    contract: str
    """Whose capacity at the site it would use."""
    runs: int
    """How many runs the hold pays for: one, and the requeues that the site may give it."""
    begin_at: datetime | None
    modules: list[str]
    container: str | None
    expected_start_at: datetime | None = None
    """By the scheduler's own estimate, if it were sent now."""
    expected_start_unknown: str | None = None
    """Why there is no estimate."""
    sites: list[SiteChoice] = []
    """All sites that were weighed, the chosen one first; empty where only one answer was asked for."""
    notices: list[str]


class JobOut(BaseModel):
    """A job as lists show it."""

    id: str
    name: str | None
    person: str
    project: str
    award: str
    site: str
    state: JobState
    reason: str | None
    gpus: int
    gpu_class: str
    """`cpu` for a job without GPU."""
    cpus: int | None
    memory_mib: int | None
    nodes: int
    exclusive: bool
    rate_credits_per_s: int
    """What its hold pays for, each second."""
    time_limit_s: int
    site_job_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    settled_at: datetime | None
    cancel_requested_at: datetime | None
    held_credits: int
    charged_credits: int | None
    """None until settled."""
    exit_code: int | None
    array: str | None
    """Of an array its tasks, in Slurm's words. Sizes, rate and time limit are those of one; hold, charge and times of
    all: it runs from the first start of a task to the last end."""
    tasks: int
    tasks_waiting: int | None
    """None of a job that is no array, as the next."""
    tasks_running: int | None
    begin_at: datetime | None
    requeues: int
    """Further runs that its hold pays for."""
    expected_start_at: datetime | None
    """By the scheduler's own estimate; None once it runs, and where there is none."""
    notices: list[str]
    hidden: list[str] = []
    """Fields that are empty here because the caller is the project's coach, who sees progress only."""


class AfterOut(BaseModel):
    """Another job that a job runs after, and how that one stands."""

    job: str
    kind: str
    state: JobState


class OutputOut(BaseModel):
    """A file in a job's output folder."""

    path: str
    size_bytes: int
    modified_at: datetime


class OutputsOut(BaseModel):
    """A page of a job's output files, by path."""

    items: list[OutputOut]
    next_cursor: str | None
    exists: bool
    """False while the job has made no output folder."""
    left_out: list[str]
    """What lies there and is not listed, and why."""


class EventOut(BaseModel):
    """One move of a job."""

    at: datetime
    state: JobState
    cause: str | None
    """None where `hidden` names the causes."""


class SiteEventOut(BaseModel):
    """What a part of a job's site said of it, in the site's words."""

    at: datetime
    """The last time, where it was said more than once."""
    reason: str
    message: str
    warning: bool
    count: int


class SiteEventsOut(BaseModel):
    """What a job's site said of it lately, oldest first."""

    items: list[SiteEventOut]
    unknown: str | None
    """Why there is nothing; None where the site was asked."""


class UsageOut(Worth):
    """The newest usage record of one attempt, its charge and what that is worth."""

    source_key: str
    revision: int
    """Above 1 where the site said something else later."""
    state: str
    started_at: datetime | None
    ended_at: datetime | None
    elapsed_s: int
    gpus: int
    cpus: int | None
    """Allocated over all nodes, as memory and nodes; None where the site did not tell."""
    memory_mib: int | None
    nodes: int | None
    exclusive: bool
    gpu_class: str
    rate_credits_per_s: int
    """What the hold's charging rule counts of it, each second."""
    weight_thousandths: int
    charged_credits: int
    tariff_micro_euros: int | None
    """Per hour of one GPU of the class at the attempt's start; None where none is known."""


class JobDetail(JobOut):
    """A job with its timeline, attempts and refunds; the value is that of all attempts, before refunds."""

    refunded_credits: int
    refunds: list[RefundOut]
    worth: Worth

    snapshot: str | None
    script_sha256: str | None
    """None where `hidden` names it."""
    tasks_by_state: dict[str, int] | None
    """Of an array: how many of its tasks are in each state."""
    after: list[AfterOut]
    signal: str | None
    signal_s: int | None
    named_environment: str | None
    modules: list[str]
    container: str | None
    expected_start_unknown: str | None
    """Why a job that waits has no estimate; None where it has one, or waits no more."""
    events: list[EventOut]
    usage: list[UsageOut]
    """Empty of an array, whose attempts are those of its tasks (/v1/jobs/{job_id}/tasks/{task})."""


class TaskOut(BaseModel):
    """One task of an array."""

    task: int
    state: JobState
    reason: str | None
    started_at: datetime | None
    ended_at: datetime | None
    settled_at: datetime | None
    cancel_requested_at: datetime | None
    charged_credits: int | None
    """None until settled."""
    exit_code: int | None
    hidden: list[str] = []
    """As of a job."""


class TaskDetail(TaskOut):
    """One task of an array with its attempts."""

    usage: list[UsageOut]


class SnapshotOut(BaseModel):
    """A folder that the broker holds."""

    digest: str
    size_bytes: int
