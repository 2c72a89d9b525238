"""Jobs, their plans and snapshots."""

from datetime import datetime

from pydantic import BaseModel, Field, model_validator

from broker.lifecycle import JobState
from broker.schemas.base import (
    ARGUMENT_BYTES_MAX,
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


class JobIn(Schema):
    """What an engineer submits: a script with arguments, or a command."""

    project: Slug | None = None
    """May be left out by a member of one project only."""
    award: Id | None = None
    site: Slug | None = None
    name: Label | None = None
    gpus: int = Field(default=1, ge=1, le=GPUS_MAX)
    gpu_class: GpuClassName | None = None
    smallest_gpu: bool = False
    """Take the class of least weight (`submit --try`)."""
    nodes: int = Field(default=1, ge=1, le=1024)
    cpus_per_gpu: int | None = Field(default=None, ge=1, le=1024)
    memory_mib: int | None = Field(default=None, ge=1, le=64 * 1024 * 1024)
    """Per node."""
    time_limit_s: int | None = Field(default=None, ge=60, le=TIME_LIMIT_S_MAX)
    """Rounded up to whole minutes; the programme's default when left out."""
    environment: dict[EnvironmentName, Text] = Field(default={})
    script: Text | None = None
    arguments: list[Text] = Field(default=[])
    snapshot: Digest | None = None
    """Digest of a folder sent before by PUT /v1/snapshots/{digest}."""

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
        if self.nodes > self.gpus:
            raise ValueError("a job has at least one GPU on each node: gpus must not be below nodes")
        return self


class PlanOut(BaseModel):
    """What would happen to a submission: where it would run, what it would hold and of which award."""

    site: str
    project: str
    award: str
    gpu_class: str
    gpus: int
    nodes: int
    time_limit_s: int
    kill_grace_s: int
    weight_thousandths: int
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
    nodes: int
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
    notices: list[str]
    hidden: list[str] = []
    """Fields that are empty here because the caller is the project's coach, who sees progress only."""


class EventOut(BaseModel):
    """One move of a job."""

    at: datetime
    state: JobState
    cause: str | None
    """None where `hidden` names the causes."""


class UsageOut(BaseModel):
    """The usage record of one attempt and its charge."""

    source_key: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None
    elapsed_s: int
    gpus: int
    gpu_class: str
    weight_thousandths: int
    charged_credits: int


class JobDetail(JobOut):
    """A job with its timeline and attempts."""

    snapshot: str | None
    script_sha256: str | None
    """None where `hidden` names it."""
    events: list[EventOut]
    usage: list[UsageOut]


class SnapshotOut(BaseModel):
    """A folder that the broker holds."""

    digest: str
    size_bytes: int
