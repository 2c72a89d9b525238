"""Sites."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from broker.schemas.base import (
    GPUS_MAX,
    TIME_LIMIT_S_MAX,
    Schema,
    Slug,
)
from quotas.charging import CPU_CLASS


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

    @field_validator("gpu_types")
    @classmethod
    def _has_no_reserved_class(cls, value: dict[str, str]) -> dict[str, str]:
        if CPU_CLASS in value:
            raise ValueError(f"the name {CPU_CLASS} is reserved for jobs without GPU: choose another name")
        return value


class FindingOut(BaseModel):
    """One thing that the last audit of a site found."""

    code: str
    severity: Literal["problem", "advice"]
    sentence: str
    """May bear text from the site."""
    remedy: str


class AccountOut(BaseModel):
    """An account of a site's pool that a project has."""

    account: str
    project: str
    state: Literal["taken", "open", "leaving"]
    """Leaving: the project needs it no more; it is wiped, then free."""
    taken_at: datetime
    left_at: datetime | None
    trouble: str | None
    """Why it could not be opened, closed or wiped the last time."""
    gpu_minutes_max: int | None
    """The second line as it was last written to the site; None before the first time."""
    limited_at: datetime | None


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


class AuditOut(SiteOut):
    """A site with all that its last audit found, for those who see to it."""

    findings: list[FindingOut]
    proven_at: datetime | None
    """When two project accounts were last proven to be isolated; None since a crossing succeeded, or never."""
