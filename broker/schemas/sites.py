"""Sites."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from broker.schemas.base import (
    GPUS_MAX,
    TIME_LIMIT_S_MAX,
    Image,
    ModuleName,
    Schema,
    Sentences,
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
    requeues: int = Field(default=0, ge=0, le=10)
    """How often the site may run a job again after a failed node or a preemption; each run is held for and charged."""
    containers: bool = False
    """Whether Apptainer is installed there."""

    @field_validator("gpu_types")
    @classmethod
    def _has_no_reserved_class(cls, value: dict[str, str]) -> dict[str, str]:
        if CPU_CLASS in value:
            raise ValueError(f"the name {CPU_CLASS} is reserved for jobs without GPU: choose another name")
        return value


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
    requeues: int
    containers: bool
    free_accounts: int
    scheduler: str | None
    problems: list[str]
    checked_at: datetime | None


class NamedEnvironmentIn(Schema):
    """An environment that a site offers: modules to load, or an image to run in."""

    site: Slug
    name: Slug
    about: Sentences
    """What is in it, for those who choose."""
    modules: list[ModuleName] = Field(default=[], max_length=32)
    container: Image | None = None

    @model_validator(mode="after")
    def _brings_something(self) -> "NamedEnvironmentIn":
        if not self.modules and self.container is None:
            raise ValueError("an environment needs modules or a container: give at least one")
        return self


class NamedEnvironmentRef(Schema):
    """Which environment of which site."""

    site: Slug
    name: Slug


class NamedEnvironmentOut(BaseModel):
    """An environment as everybody may know it."""

    id: str
    """`site/name`."""
    site: str
    name: str
    about: str
    modules: list[str]
    container: str | None
    entered_at: datetime
