"""Sites and the accounts that projects have there."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from broker.models.columns import moment, reference
from storage.tables import BIG


class Site(SQLModel, table=True):
    """One cluster that jobs may be sent to; `settings` is the enrolment as the operator gave it."""

    __tablename__ = "site"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    settings: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    scheduler: str | None = Field(default=None, max_length=100)
    problems: list[str] = Field(sa_column=Column(JSON, nullable=False))
    """What keeps jobs away, as everybody may read it."""
    findings: list[dict[str, str]] = Field(sa_column=Column(JSON, nullable=False))
    """All that the last audit found, for operators: code, severity, sentence, remedy (adapters/upkeep.py)."""
    checked_at: datetime | None = moment(nullable=True)
    proven_at: datetime | None = moment(nullable=True)
    """When two of its project accounts were last proven to be isolated; None since a crossing succeeded."""
    array_size_max: int | None = None
    """Every index of an array's task lies below it, as the site said when it was checked; None: it did not tell."""
    created_at: datetime = moment()


class ProjectAccount(SQLModel, table=True):
    """The account that a project's jobs run as at one site; no two projects share one.

    Taken when the row is written, open once the site lets it run jobs, left when the project needs it no more, and
    free again when it was wiped: then the row goes. While `left_at` stands, no job is sent as this account.
    """

    __tablename__ = "project_account"
    __table_args__ = (
        UniqueConstraint("site_id", "project_id"),
        CheckConstraint("gpu_minutes_max IS NULL OR gpu_minutes_max >= 0", name="gpu_minutes_not_negative"),
    )

    site_id: str = reference("site.id", primary_key=True)
    account: str = Field(primary_key=True, max_length=32)
    project_id: str = reference("project.id")
    taken_at: datetime = moment()
    opened_at: datetime | None = moment(nullable=True)
    left_at: datetime | None = moment(nullable=True)
    lease_until: datetime | None = moment(nullable=True)
    """Until then a worker has it in hand, or what it asked for may still be under way at the site."""
    lease_step: str | None = Field(default=None, max_length=8)
    """What for: `open`, or `close` with the wipe that may follow."""
    trouble: str | None = Field(default=None, max_length=1000)
    """Why it could not be opened, closed or wiped the last time."""
    gpu_minutes_max: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """The second line as it was last written to the site; never read back."""
    limited_at: datetime | None = moment(nullable=True)


class NamedEnvironment(SQLModel, table=True):
    """Modules or a container image that a site offers under a name; jobs keep what it was when they were submitted."""

    __tablename__ = "named_environment"
    __table_args__ = (CheckConstraint("about <> ''", name="about_given"),)

    site_id: str = reference("site.id", primary_key=True)
    name: str = Field(primary_key=True, max_length=40)
    about: str = Field(max_length=1000)
    modules: list[str] = Field(sa_column=Column(JSON, nullable=False))
    container: str | None = Field(default=None, max_length=1024)
    entered_at: datetime = moment()


class Certification(SQLModel, table=True):
    """A proof that a service of a site meets a scheme; it counts once a second operator confirmed it."""

    __tablename__ = "certification"
    __table_args__ = (
        CheckConstraint("end_at > start_at", name="period"),
        CheckConstraint("confirmed_by IS NULL OR confirmed_by <> entered_by", name="two_people"),
        CheckConstraint("(confirmed_by IS NULL) = (confirmed_at IS NULL)", name="confirmation_whole"),
        CheckConstraint("(withdrawn_by IS NULL) = (withdrawn_at IS NULL)", name="withdrawal_whole"),
    )

    id: str = Field(primary_key=True, max_length=32)
    site_id: str = reference("site.id", index=True)
    service: str = Field(max_length=200)
    scheme: str = Field(max_length=40)
    version: str = Field(max_length=20)
    scope: list[str] = Field(sa_column=Column(JSON, nullable=False))
    """What of the service it covers: `computing`, `storage`."""
    document: str = Field(max_length=200)
    """Where the certificate is kept: a reference, never the file."""
    start_at: datetime = moment()
    end_at: datetime = moment()
    entered_by: str = reference("person.id")
    entered_at: datetime = moment()
    confirmed_by: str | None = reference("person.id", nullable=True)
    confirmed_at: datetime | None = moment(nullable=True)
    withdrawn_by: str | None = reference("person.id", nullable=True)
    withdrawn_at: datetime | None = moment(nullable=True)
    withdrawn_why: str | None = Field(default=None, max_length=1000)
