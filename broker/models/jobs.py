"""Jobs and what happened to them."""

from datetime import datetime

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    text,
)
from sqlmodel import Field, SQLModel

from broker.lifecycle import ENDED, JobState
from broker.models.columns import moment, reference
from storage.tables import BIG

_STATES = ", ".join(f"'{state}'" for state in JobState)
_ENDED = ", ".join(f"'{state}'" for state in sorted(ENDED))

_UNSETTLED = text("settled_at IS NULL")


class Job(SQLModel, table=True):
    """What a user submitted, and how it stands."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state_known"),
        CheckConstraint(f"settled_at IS NULL OR state IN ({_ENDED})", name="settled_only_when_ended"),
        CheckConstraint("(settled_at IS NULL) = (charged_credits IS NULL)", name="charged_when_settled"),
        CheckConstraint("gpus >= 0 AND gpus_taken >= gpus AND nodes > 0 AND time_limit_s > 0", name="size_positive"),
        CheckConstraint("rate_credits_per_s > 0", name="rate_positive"),
        Index("ix_job_site_id_state", "site_id", "state"),
        Index("ix_job_unsettled", "site_id", "id", sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED),
        Index("ix_job_project_id_id", "project_id", "id"),
    )

    id: str = Field(primary_key=True, max_length=32)
    name: str | None = Field(default=None, max_length=200)
    person_id: str = reference("person.id")
    project_id: str = reference("project.id")
    programme_id: str = reference("programme.id")
    award_id: str = reference("award.id")
    site_id: str = reference("site.id")
    hold_id: str = reference("hold.id")
    account: str | None = Field(default=None, max_length=32)
    """None while its project has no account at the site; such a job waits in `held`."""
    state: str = Field(max_length=16)
    reason: str | None = Field(default=None, max_length=1000)
    gpus: int
    gpus_taken: int
    """That nobody else can use meanwhile: what ceilings count."""
    gpu_class: str = Field(max_length=40)
    weight_thousandths: int
    nodes: int
    cpus_per_gpu: int | None = None
    cpus: int | None = None
    """Asked for over all nodes, as they are counted; None where nobody named any and they are not counted."""
    memory_mib: int | None = None
    """Asked for on each node."""
    exclusive: bool = False
    """Whole nodes, by wish or by the rule."""
    partition: str | None = Field(default=None, max_length=64)
    charging_rule_id: str | None = reference("charging_rule.id", nullable=True)
    """Frozen at the hold, for the charge (docs/rules.md); None where the site had no rule: GPUs alone count."""
    rate_credits_per_s: int = Field(sa_column=Column(BIG, nullable=False))
    """What the hold pays for, each second."""
    time_limit_s: int
    deadline_at: datetime = moment()
    snapshot: str | None = Field(default=None, max_length=64)
    script_sha256: str = Field(max_length=64)
    notices: list[str] = Field(sa_column=Column(JSON, nullable=False))
    held_credits: int = Field(sa_column=Column(BIG, nullable=False))
    charged_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    created_at: datetime = moment()

    batch_id: str | None = Field(default=None, max_length=32)
    """The batch that it was sent in: the intent is written before anything is sent."""
    sent_at: datetime | None = moment(nullable=True)
    lease_until: datetime | None = moment(nullable=True)
    """Until then the worker that sent it will say what became of it; later, adoption finds out."""
    next_try_at: datetime | None = moment(nullable=True)
    tries: int = 0
    site_job_id: str | None = Field(default=None, max_length=64)
    cancel_requested_at: datetime | None = moment(nullable=True)
    cancel_cause: str | None = Field(default=None, max_length=300)
    cancel_sent_at: datetime | None = moment(nullable=True)
    missing_since: datetime | None = moment(nullable=True)
    """Since when the site's queue and accounting, both of which answered, do not show it as they should."""
    started_at: datetime | None = moment(nullable=True)
    ended_at: datetime | None = moment(nullable=True)
    settled_at: datetime | None = moment(nullable=True)
    exit_code: int | None = None


class JobPayload(SQLModel, table=True):
    """What a job runs, apart from the row that every cycle reads."""

    __tablename__ = "job_payload"

    job_id: str = reference("job.id", primary_key=True)
    script: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    arguments: list[str] = Field(sa_column=Column(JSON, nullable=False))
    environment: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))


class JobEvent(SQLModel, table=True):
    """One move of a job, with its time and cause."""

    __tablename__ = "job_event"

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    job_id: str = reference("job.id", index=True)
    at: datetime = moment()
    state: str = Field(max_length=16)
    cause: str = Field(max_length=1000)
