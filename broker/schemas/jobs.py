"""Jobs, their plans and snapshots."""

from datetime import datetime

from pydantic import BaseModel, Field, field_validator, model_validator

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
    Label,
    Schema,
    Slug,
    Text,
)
from broker.schemas.refunds import RefundOut, Worth


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
    memory_mib: int | None = Field(default=None, ge=1, le=64 * 1024 * 1024)
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
    notices: list[str]
    hidden: list[str] = []
    """Fields that are empty here because the caller is the project's coach, who sees progress only."""


class EventOut(BaseModel):
    """One move of a job."""

    at: datetime
    state: JobState
    cause: str | None
    """None where `hidden` names the causes."""


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
