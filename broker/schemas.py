"""What goes over the wire under /v1. Amounts are integer credits, sizes bytes, durations seconds, times UTC."""

from datetime import date, datetime
from typing import Annotated, Generic, Literal, TypeVar
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from broker.lifecycle import JobState

T = TypeVar("T")

SCRIPT_BYTES_MAX = 1024 * 1024
ARGUMENT_BYTES_MAX = 128 * 1024
ENVIRONMENT_BYTES_MAX = 64 * 1024
GPUS_MAX = 4096
TIME_LIMIT_S_MAX = 30 * 24 * 3600


def _is_plain_text(value: str) -> str:
    """Refuse control characters and half surrogates, which no name needs and every log suffers from."""
    if any(category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("must not hold control characters, such as a newline or an escape")
    return value


def _has_no_nul(value: str) -> str:
    if "\0" in value or any(category(character) == "Cs" for character in value):
        raise ValueError("must be valid text without NUL characters")
    return value


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A name that is typed: lower case letters, digits and hyphens, at most 40."""
Label = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_is_plain_text)]
"""A name that is only shown."""
Text = Annotated[str, AfterValidator(_has_no_nul)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
"""An opaque id of ours."""
GpuClassName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,39}$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Day = Annotated[date, Field(ge=date(1970, 1, 1), le=date(9000, 12, 31))]
"""A calendar day in Europe/Paris, within what both databases and Python can reckon with."""
Credits = Annotated[int, Field(gt=0, le=2**53)]
Role = Literal["engineer", "manager", "operator", "auditor"]
Confidentiality = Literal["public", "internal", "confidential"]
Nature = Literal["none", "personal", "health"]


class Schema(BaseModel):
    """The base of all bodies: an unknown field is refused, since a misspelt limit must not pass unseen."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457 problem details: which rule refused it (`code`) and what would make it pass (`remedy`)."""

    type: str = Field(examples=["urn:idf-compute:problem:award-too-small"])
    title: str
    status: int
    code: str
    detail: str
    remedy: str | None = None


class Page(BaseModel, Generic[T]):
    """One page of a list; `next_cursor` is None on the last."""

    items: list[T]
    next_cursor: str | None = None


# People


class PersonIn(Schema):
    """Somebody who may use the broker."""

    name: Slug
    full_name: Label | None = None
    roles: list[Role] = Field(default=["engineer"], min_length=1)


class PersonOut(BaseModel):
    """A person and what they may do."""

    id: str
    name: str
    full_name: str | None
    roles: list[Role]
    created_at: datetime


class TokenIn(Schema):
    """A token for a person; without an end date it is valid for a year."""

    person: Slug
    label: Label = "token"
    days: int = Field(default=365, ge=1, le=3650)


class TokenOut(BaseModel):
    """A token as it may be shown at any time."""

    id: str
    person: str
    label: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class TokenSecretOut(TokenOut):
    """A new token; `token` is shown this once."""

    token: str


class MeOut(BaseModel):
    """Who the caller is."""

    person: PersonOut
    projects: list[str]


# Organisations, programmes, projects, awards


class OrganisationIn(Schema):
    """Who is helped."""

    name: Slug
    full_name: Label | None = None
    siret: str | None = Field(default=None, pattern=r"^[0-9]{14}$")


class OrganisationOut(BaseModel):
    """An organisation."""

    id: str
    name: str
    full_name: str | None
    siret: str | None
    created_at: datetime


class ProgrammeIn(Schema):
    """A policy with a budget."""

    name: Slug
    kind: Literal["pack-ia", "challenge", "pooled-data", "training", "other"] = "other"
    budget_credits: Credits
    default_time_limit_s: int = Field(default=3600, ge=60, le=TIME_LIMIT_S_MAX)


class ProgrammeOut(BaseModel):
    """A programme and what is left to award."""

    id: str
    name: str
    kind: str
    default_time_limit_s: int
    unawarded_credits: int
    created_at: datetime


class ProjectIn(Schema):
    """What an organisation does inside one programme."""

    name: Slug
    organisation: Slug
    programme: Slug
    confidentiality: Confidentiality = "internal"
    nature: Nature = "none"


class ProjectOut(BaseModel):
    """A project."""

    id: str
    name: str
    organisation: str
    programme: str
    confidentiality: Confidentiality
    nature: Nature
    members: list[str]
    created_at: datetime


class MemberIn(Schema):
    """A person who joins a project."""

    person: Slug


class AwardIn(Schema):
    """The right of a project to consume credits; both dates are days in Europe/Paris, the end included."""

    project: Slug
    amount_credits: Credits
    start_on: Day
    end_on: Day

    @model_validator(mode="after")
    def _ends_after_start(self) -> "AwardIn":
        if self.end_on < self.start_on:
            raise ValueError("end_on is before start_on")
        return self


class ClassHours(BaseModel):
    """How long one GPU of a class could run on what is available, in seconds rounded down."""

    gpu_class: str
    weight_thousandths: int
    available_s: int


class AwardOut(BaseModel):
    """An award and its balances; awarded = available + held + consumed - overrun."""

    id: str
    project: str
    programme: str
    start_at: datetime
    end_at: datetime
    active: bool
    awarded_credits: int
    available_credits: int
    held_credits: int
    consumed_credits: int
    overrun_credits: int
    classes: list[ClassHours]


class QuotaOut(BaseModel):
    """What is left, award by award, for the projects the caller may see."""

    awards: list[AwardOut]


# Sites


class GpuClassIn(Schema):
    """A kind of GPU with its weight against the V100 (1000), valid from a day in Europe/Paris."""

    name: GpuClassName
    weight_thousandths: int = Field(ge=1, le=1_000_000)
    valid_from: Day


class GpuClassOut(BaseModel):
    """A GPU class as it is weighted today."""

    name: str
    weight_thousandths: int
    valid_from: datetime


class SiteIn(Schema):
    """A site as an operator enrols it. Files are named, never sent: they lie on the broker's machine."""

    name: Slug
    kind: Literal["slurm"] = "slurm"
    cluster: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """The scheduler's own name of the cluster: part of every attempt's identity."""
    host: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?$")
    port: int = Field(default=22, ge=1, le=65535)
    login: str = Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")
    identity_file: str = Field(min_length=1, max_length=4096)
    host_key: str = Field(pattern=r"^(ssh-ed25519|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/=]+$")
    isolation: Literal["accounts", "shared"]
    accounts: list[Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]] = Field(min_length=1)
    gpu_types: dict[str, str] = Field(min_length=1, examples=[{"a100-80": "a100"}])
    """GPU class → the site's own name of it."""
    constraints: dict[str, str] = Field(default={}, examples=[{"a100-80g": "a100-80"}])
    """What engineers wrote after `-C` in their sbatch scripts there → GPU class."""
    partition: str | None = None
    gpus_per_job_max: int = Field(default=64, ge=1, le=GPUS_MAX)
    time_limit_s_max: int = Field(default=24 * 3600, ge=60, le=TIME_LIMIT_S_MAX)
    kill_grace_s: int = Field(default=60, ge=0, le=3600)


class SiteOut(BaseModel):
    """A site as everybody may know it."""

    id: str
    name: str
    kind: str
    isolation: str
    gpu_types: dict[str, str]
    constraints: dict[str, str]
    gpus_per_job_max: int
    time_limit_s_max: int
    kill_grace_s: int
    free_accounts: int
    scheduler: str | None
    problems: list[str]
    checked_at: datetime | None


# Jobs


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
    environment: dict[EnvironmentName, Text] = {}
    script: Text | None = None
    arguments: list[Text] = []
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


class EventOut(BaseModel):
    """One move of a job."""

    at: datetime
    state: JobState
    cause: str


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
    script_sha256: str
    events: list[EventOut]
    usage: list[UsageOut]


class SnapshotOut(BaseModel):
    """A folder that the broker holds."""

    digest: str
    size_bytes: int


# Reports


class GpuReportRow(BaseModel):
    """GPU use of one project, programme or site in the period, by the end of the attempts."""

    key: str
    jobs: int
    attempts: int
    gpu_seconds: int
    charged_credits: int
    overrun_credits: int


class GpuReportOut(BaseModel):
    """The GPU report; `ledger_credits` is what the ledger's settles of the same period sum up to."""

    by: Literal["project", "programme", "site"]
    from_on: date
    to_on: date
    rows: list[GpuReportRow]
    gpu_seconds: int
    charged_credits: int
    overrun_credits: int
    ledger_credits: int
    agrees: bool
