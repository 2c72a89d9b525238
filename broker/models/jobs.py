"""Jobs and what happened to them."""

from datetime import datetime

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    text,
)
from sqlmodel import Field, SQLModel

from broker.lifecycle import ENDED, JobState
from broker.models.columns import moment, reference
from storage.tables import BIG

_STATES = ", ".join(f"'{state}'" for state in JobState)
_ENDED = ", ".join(f"'{state}'" for state in sorted(ENDED))

_UNSETTLED = text("settled_at IS NULL")
_SENT = text("site_job_id IS NOT NULL")
_TO_CANCEL = text("cancel_requested_at IS NOT NULL AND settled_at IS NULL")


class Job(SQLModel, table=True):
    """What a user submitted, and how it stands."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state_known"),
        CheckConstraint(f"settled_at IS NULL OR state IN ({_ENDED})", name="settled_only_when_ended"),
        CheckConstraint("(settled_at IS NULL) = (charged_credits IS NULL)", name="charged_when_settled"),
        CheckConstraint("gpus >= 0 AND gpus_taken >= gpus AND nodes > 0 AND time_limit_s > 0", name="size_positive"),
        CheckConstraint("rate_credits_per_s > 0", name="rate_positive"),
        CheckConstraint(
            "(array_words IS NULL AND tasks = 1 AND tasks_waiting IS NULL AND tasks_running IS NULL)"
            " OR (tasks_waiting >= 0 AND tasks_running >= 0 AND tasks_waiting + tasks_running <= tasks)",
            name="tasks_counted",
        ),
        CheckConstraint("requeues >= 0", name="requeues_not_negative"),
        CheckConstraint("(signal IS NULL) = (signal_s IS NULL)", name="signal_with_its_time"),
        Index("ix_job_site_id_state", "site_id", "state"),
        Index("ix_job_unsettled", "site_id", "id", sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED),
        Index("ix_job_project_id_id", "project_id", "id"),
        Index("ix_job_site_job_id", "site_id", "site_job_id", sqlite_where=_SENT, postgresql_where=_SENT),
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
    """That nobody else can use meanwhile: what ceilings count. Of an array, those of the tasks that may still run at
    one time."""
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
    begin_at: datetime | None = moment(nullable=True)
    """It does not start before."""
    signal: str | None = Field(default=None, max_length=8)
    signal_s: int | None = None
    """How long before its time limit it is sent the signal."""
    requeues: int = 0
    """Further runs that its site may give it, for which it holds as well."""
    expected_start_at: datetime | None = moment(nullable=True)
    """By the scheduler's own estimate, while it waits there; None where that tells none."""

    array_words: str | None = Field(default=None, max_length=1000)
    """Of an array: its tasks in Slurm's words, as they were asked for. Sizes, rate and time limit are those of one."""
    tasks: int = 1
    """How many share the hold, each with an equal part of it."""
    tasks_waiting: int | None = None
    """Of an array: how many have not begun, or wait again; None of a job that is none. The same of the next."""
    tasks_running: int | None = None


class JobTask(SQLModel, table=True):
    """One task of an array that has a state of its own: it has begun or ended, or its end is wished for.

    A task without a row waits, or stands as its job does while that is not at a site.
    """

    __tablename__ = "job_task"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state_known"),
        CheckConstraint(f"settled_at IS NULL OR state IN ({_ENDED})", name="settled_only_when_ended"),
        CheckConstraint("(settled_at IS NULL) = (charged_credits IS NULL)", name="charged_when_settled"),
        Index("ix_job_task_to_cancel", "job_id", sqlite_where=_TO_CANCEL, postgresql_where=_TO_CANCEL),
    )

    job_id: str = reference("job.id", primary_key=True)
    task: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    state: str = Field(max_length=16)
    reason: str | None = Field(default=None, max_length=1000)
    started_at: datetime | None = moment(nullable=True)
    ended_at: datetime | None = moment(nullable=True)
    settled_at: datetime | None = moment(nullable=True)
    charged_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    exit_code: int | None = None
    cancel_requested_at: datetime | None = moment(nullable=True)
    cancel_cause: str | None = Field(default=None, max_length=300)
    cancel_sent_at: datetime | None = moment(nullable=True)
    missing_since: datetime | None = moment(nullable=True)
    """As of a job."""


class JobPayload(SQLModel, table=True):
    """What a job runs, apart from the row that every cycle reads."""

    __tablename__ = "job_payload"

    job_id: str = reference("job.id", primary_key=True)
    script: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    arguments: list[str] = Field(sa_column=Column(JSON, nullable=False))
    environment: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    named_environment: str | None = Field(default=None, max_length=40)
    modules: list[str] = Field(sa_column=Column(JSON, nullable=False))
    """As they were at the submission, those of the named environment first."""
    container: str | None = Field(default=None, max_length=1024)


class JobAfter(SQLModel, table=True):
    """That a job runs after another one of its project, and after which end of that."""

    __tablename__ = "job_after"
    __table_args__ = (CheckConstraint("kind IN ('afterok', 'afterany', 'afternotok')", name="kind_known"),)

    job_id: str = reference("job.id", primary_key=True)
    other_id: str = Field(sa_column=Column(String(40), ForeignKey("job.id"), primary_key=True, index=True))
    kind: str = Field(max_length=16)


class JobEvent(SQLModel, table=True):
    """One move of a job, with its time and cause."""

    __tablename__ = "job_event"

    id: int | None = Field(default=None, sa_column=Column(BIG, primary_key=True, autoincrement=True))
    job_id: str = reference("job.id", index=True)
    at: datetime = moment()
    state: str = Field(max_length=16)
    cause: str = Field(max_length=1000)
