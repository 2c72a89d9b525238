"""Sites."""

from datetime import datetime
from ipaddress import ip_address
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

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
from broker.schemas.kubernetes import KubernetesIn
from quotas.charging import CPU_CLASS

_HOST = r"([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9a-fA-F:.]{2,45}\])"
REST_URL_PATTERN = rf"^(https?://{_HOST}(:[0-9]{{1,5}})?|unix:/[^\s?#]{{1,100}})$"


class Ssh(NamedTuple):
    """Where a Slurm site's gateway answers, as whom, and by which keys."""

    host: str
    port: int
    login: str
    identity_file: str
    host_key: str


class SiteIn(Schema):
    """A site as an operator enrols it. Files are named, never sent: they lie on the broker's machine."""

    name: Slug
    kind: Literal["slurm", "k8s"] = "slurm"
    cluster: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """The scheduler's own name of the cluster: part of every attempt's identity."""
    host: str | None = Field(default=None, pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?$")
    """This and the next four: how a Slurm site is reached over SSH."""
    port: int = Field(default=22, ge=1, le=65535)
    login: str | None = Field(default=None, pattern=r"^[a-z_][a-z0-9_-]{0,31}$")
    identity_file: str | None = Field(default=None, min_length=1, max_length=4096)
    host_key: str | None = Field(default=None, pattern=r"^(ssh-ed25519|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/=]+$")
    kubernetes: KubernetesIn | None = None
    isolation: Literal["accounts", "shared"]
    accounts: list[Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]] = Field(default=[])
    """The pool of project accounts of a Slurm site; in a Kubernetes pool each project gets a namespace of its own."""
    gpu_types: dict[str, str] = Field(min_length=1, examples=[{"a100-80": "a100"}])
    """GPU class → the site's own name of it."""
    constraints: dict[str, str] = Field(default={}, examples=[{"a100-80g": "a100-80"}])
    """What engineers wrote after `-C` in their sbatch scripts there → GPU class."""
    partition: str | None = None
    gpus_per_job_max: int = Field(default=64, ge=1, le=GPUS_MAX)
    time_limit_s_max: int = Field(default=24 * 3600, ge=60, le=TIME_LIMIT_S_MAX)
    kill_grace_s: int = Field(default=60, ge=0, le=3600)
    transport: Literal["ssh", "rest", "pyslurm"] = "ssh"
    """What jobs are sent and looked for by. With `rest`, logs, snapshots and tokens still come over SSH; with
    `pyslurm`, of a broker on the cluster itself, the site's care does: audits and project accounts."""
    rest_url: str | None = Field(default=None, pattern=REST_URL_PATTERN, examples=["https://slurm.example.org:6820"])
    """slurmrestd's address: https, or on the broker's own machine http or a Unix socket."""
    rest_ca_file: str | None = Field(default=None, min_length=1, max_length=4096)
    """The authority of slurmrestd's certificate, on the broker's machine; without it those that the machine trusts."""
    pyslurm_command: list[Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,4096}$")]] | None = Field(
        default=None, min_length=1, max_length=16, examples=[["/opt/idf/bin/python", "-I", "/usr/libexec/idf-pyslurm"]]
    )
    """What starts the child that has pyslurm: its Python, `-I` and the installed `idf-pyslurm`, by whole paths."""
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

    @model_validator(mode="after")
    def _says_how_it_is_reached(self) -> "SiteIn":
        over_ssh = ("host", "login", "identity_file", "host_key", "accounts")
        if self.kind == "slurm":
            missing = [name for name in over_ssh if not getattr(self, name)]
            if missing:
                raise ValueError(f"a Slurm site needs {', '.join(missing)}")
            if self.kubernetes is not None:
                raise ValueError('the section kubernetes belongs to a Kubernetes pool: set kind to "k8s"')
            return self
        given = [name for name in over_ssh if getattr(self, name)]
        if given or self.transport != "ssh":
            raise ValueError(f"{', '.join(given) or 'transport'} belongs to a Slurm site: leave it out of a pool")
        if self.kubernetes is None:
            raise ValueError("a Kubernetes pool needs the section kubernetes: kubeconfig, image and nodes")
        unknown = sorted(set(self.gpu_types.values()) - set(self.kubernetes.nodes))
        if unknown:
            raise ValueError(f"gpu_types names {', '.join(unknown)}, which kubernetes.nodes does not describe")
        if self.isolation != "accounts":
            raise ValueError('a Kubernetes pool gives each project a namespace: set isolation to "accounts"')
        return self

    @property
    def time_sliced(self) -> frozenset[str]:
        """The GPU classes whose GPUs several pods share by time slicing."""
        nodes = self.kubernetes.nodes if self.kubernetes is not None else {}
        return frozenset(name for name, type_ in self.gpu_types.items() if type_ in nodes and nodes[type_].time_sliced)

    @property
    def ssh(self) -> "Ssh":
        """How a Slurm site is reached.

        Raises:
            ValueError: it is none.
        """
        given = (self.host, self.login, self.identity_file, self.host_key)
        host, login, identity_file, host_key = (value or "" for value in given)
        if not all(given):
            raise ValueError(f"site {self.name} is not reached over SSH")
        return Ssh(host, self.port, login, identity_file, host_key)

    @model_validator(mode="after")
    def _says_what_starts_pyslurm(self) -> "SiteIn":
        if self.transport == "pyslurm" and self.pyslurm_command is None:
            raise ValueError("the transport pyslurm needs pyslurm_command, what starts its child on this machine")
        if self.transport != "pyslurm" and self.pyslurm_command is not None:
            raise ValueError("pyslurm_command belongs to the transport pyslurm: set transport to pyslurm")
        return self

    @model_validator(mode="after")
    def _says_where_slurmrestd_is(self) -> "SiteIn":
        if self.transport == "rest" and self.rest_url is None:
            raise ValueError("the transport rest needs rest_url, the address of slurmrestd")
        if self.transport != "rest" and (self.rest_url is not None or self.rest_ca_file is not None):
            raise ValueError("rest_url and rest_ca_file belong to the transport rest: set transport to rest")
        if self.rest_url is not None and self.rest_url.startswith("http:") and not _is_this_machine(self.rest_host):
            raise ValueError("rest_url must be https: a token that travels in the clear can be used by whoever sees it")
        return self

    @property
    def rest_host(self) -> str | None:
        """slurmrestd's host; None where there is none, or a Unix socket."""
        return urlsplit(self.rest_url).hostname if self.rest_url is not None else None


def _is_this_machine(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


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
    transport: str
    isolation: str
    gpu_types: dict[str, str]
    constraints: dict[str, str]
    gpus_per_job_max: int
    time_limit_s_max: int
    kill_grace_s: int
    requeues: int
    containers: bool
    free_accounts: int | None
    """None where each project gets one of its own."""
    scheduler: str | None
    problems: list[str]
    checked_at: datetime | None


class AuditOut(SiteOut):
    """A site with all that its last audit found, for those who see to it."""

    findings: list[FindingOut]
    proven_at: datetime | None
    """When two project accounts were last proven to be isolated; None since a crossing succeeded, or never."""


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
