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


class Site(SQLModel, table=True):
    """One cluster that jobs may be sent to; `settings` is the enrolment as the operator gave it."""

    __tablename__ = "site"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    settings: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    scheduler: str | None = Field(default=None, max_length=100)
    problems: list[str] = Field(sa_column=Column(JSON, nullable=False))
    checked_at: datetime | None = moment(nullable=True)
    array_size_max: int | None = None
    """Every index of an array's task lies below it, as the site said when it was checked; None: it did not tell."""
    created_at: datetime = moment()


class ProjectAccount(SQLModel, table=True):
    """The account that a project's jobs run as at one site; no two projects share one."""

    __tablename__ = "project_account"
    __table_args__ = (UniqueConstraint("site_id", "project_id"),)

    site_id: str = reference("site.id", primary_key=True)
    account: str = Field(primary_key=True, max_length=32)
    project_id: str = reference("project.id")


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
