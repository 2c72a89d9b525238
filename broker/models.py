"""The broker's tables: people, tokens, organisations, projects, sites, jobs and what happened to them."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from broker.lifecycle import ENDED, JobState
from storage.tables import BIG, UtcTime

ANSWERS_KEPT_FOR = timedelta(hours=24)

_STATES = ", ".join(f"'{state}'" for state in JobState)
_ENDED = ", ".join(f"'{state}'" for state in sorted(ENDED))

_UNSETTLED = text("settled_at IS NULL")


def _reference(target: str, *, index: bool = False, primary_key: bool = False) -> Any:
    return Field(sa_column=Column(String(40), ForeignKey(target), nullable=False, index=index, primary_key=primary_key))


def _moment(*, nullable: bool = False) -> Any:
    if nullable:
        return Field(default=None, sa_column=Column(UtcTime, nullable=True))
    return Field(sa_column=Column(UtcTime, nullable=False))


class Person(SQLModel, table=True):
    """Somebody who may use the broker."""

    __tablename__ = "person"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    full_name: str | None = Field(default=None, max_length=200)
    roles: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = _moment()


class ApiToken(SQLModel, table=True):
    """A token, of which only the SHA-256 is kept; the id is the part that it is looked up by."""

    __tablename__ = "api_token"

    id: str = Field(primary_key=True, max_length=16)
    sha256: str = Field(max_length=64)
    person_id: str = _reference("person.id", index=True)
    label: str = Field(max_length=200)
    created_at: datetime = _moment()
    expires_at: datetime = _moment()
    revoked_at: datetime | None = _moment(nullable=True)


class Idempotency(SQLModel, table=True):
    """The first answer to a POST, kept 24 hours; `answer` is None where it bore a secret."""

    __tablename__ = "idempotency"

    person_id: str = Field(primary_key=True, max_length=32)
    method: str = Field(primary_key=True, max_length=8)
    route: str = Field(primary_key=True, max_length=100)
    key: str = Field(primary_key=True, max_length=200)
    request_sha256: str = Field(max_length=64)
    status: int
    answer: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    resource: str = Field(max_length=200)
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False, index=True))


class Organisation(SQLModel, table=True):
    """Who is helped."""

    __tablename__ = "organisation"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    full_name: str | None = Field(default=None, max_length=200)
    siret: str | None = Field(default=None, max_length=14)
    created_at: datetime = _moment()


class Project(SQLModel, table=True):
    """What an organisation does inside one programme."""

    __tablename__ = "project"
    __table_args__ = (
        CheckConstraint("confidentiality IN ('public', 'internal', 'confidential')", name="confidentiality_known"),
        CheckConstraint("nature IN ('none', 'personal', 'health')", name="nature_known"),
    )

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    organisation_id: str = _reference("organisation.id")
    programme_id: str = _reference("programme.id")
    confidentiality: str = Field(max_length=16)
    nature: str = Field(max_length=16)
    created_at: datetime = _moment()


class Membership(SQLModel, table=True):
    """A person's part in a project."""

    __tablename__ = "membership"

    person_id: str = _reference("person.id", primary_key=True)
    project_id: str = _reference("project.id", primary_key=True)
    since: datetime = _moment()


class Site(SQLModel, table=True):
    """One cluster that jobs may be sent to; `settings` is the enrolment as the operator gave it."""

    __tablename__ = "site"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    settings: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    scheduler: str | None = Field(default=None, max_length=100)
    problems: list[str] = Field(sa_column=Column(JSON, nullable=False))
    checked_at: datetime | None = _moment(nullable=True)
    created_at: datetime = _moment()


class ProjectAccount(SQLModel, table=True):
    """The account that a project's jobs run as at one site; no two projects share one."""

    __tablename__ = "project_account"
    __table_args__ = (UniqueConstraint("site_id", "project_id"),)

    site_id: str = _reference("site.id", primary_key=True)
    account: str = Field(primary_key=True, max_length=32)
    project_id: str = _reference("project.id")


class Job(SQLModel, table=True):
    """What a user submitted, and how it stands."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state_known"),
        CheckConstraint(f"settled_at IS NULL OR state IN ({_ENDED})", name="settled_only_when_ended"),
        CheckConstraint("(settled_at IS NULL) = (charged_credits IS NULL)", name="charged_when_settled"),
        CheckConstraint("gpus > 0 AND nodes > 0 AND time_limit_s > 0", name="size_positive"),
        Index("ix_job_site_id_state", "site_id", "state"),
        Index("ix_job_unsettled", "site_id", "id", sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED),
        Index("ix_job_project_id_id", "project_id", "id"),
    )

    id: str = Field(primary_key=True, max_length=32)
    name: str | None = Field(default=None, max_length=200)
    person_id: str = _reference("person.id")
    project_id: str = _reference("project.id")
    programme_id: str = _reference("programme.id")
    award_id: str = _reference("award.id")
    site_id: str = _reference("site.id")
    hold_id: str = _reference("hold.id")
    account: str = Field(max_length=32)
    state: str = Field(max_length=16)
    reason: str | None = Field(default=None, max_length=1000)
    gpus: int
    gpu_class: str = Field(max_length=40)
    weight_thousandths: int
    nodes: int
    cpus_per_gpu: int | None = None
    memory_mib: int | None = None
    time_limit_s: int
    deadline_at: datetime = _moment()
    snapshot: str | None = Field(default=None, max_length=64)
    script_sha256: str = Field(max_length=64)
    notices: list[str] = Field(sa_column=Column(JSON, nullable=False))
    held_credits: int = Field(sa_column=Column(BIG, nullable=False))
    charged_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    created_at: datetime = _moment()

    batch_id: str | None = Field(default=None, max_length=32)
    """The batch that it was sent in: the intent is written before anything is sent."""
    sent_at: datetime | None = _moment(nullable=True)
    lease_until: datetime | None = _moment(nullable=True)
    """Until then the worker that sent it will say what became of it; later, adoption finds out."""
    next_try_at: datetime | None = _moment(nullable=True)
    tries: int = 0
    site_job_id: str | None = Field(default=None, max_length=64)
    cancel_requested_at: datetime | None = _moment(nullable=True)
    cancel_cause: str | None = Field(default=None, max_length=300)
    cancel_sent_at: datetime | None = _moment(nullable=True)
    started_at: datetime | None = _moment(nullable=True)
    ended_at: datetime | None = _moment(nullable=True)
    settled_at: datetime | None = _moment(nullable=True)
    exit_code: int | None = None


class JobPayload(SQLModel, table=True):
    """What a job runs, apart from the row that every cycle reads."""

    __tablename__ = "job_payload"

    job_id: str = _reference("job.id", primary_key=True)
    script: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    arguments: list[str] = Field(sa_column=Column(JSON, nullable=False))
    environment: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))


class JobEvent(SQLModel, table=True):
    """One move of a job, with its time and cause."""

    __tablename__ = "job_event"

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    job_id: str = _reference("job.id", index=True)
    at: datetime = _moment()
    state: str = Field(max_length=16)
    cause: str = Field(max_length=1000)
