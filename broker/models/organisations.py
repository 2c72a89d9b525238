"""Organisations, projects and who belongs to them."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
)
from sqlmodel import Field, SQLModel

from broker.models.columns import moment, reference


class Organisation(SQLModel, table=True):
    """Who is helped."""

    __tablename__ = "organisation"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    full_name: str | None = Field(default=None, max_length=200)
    siret: str | None = Field(default=None, max_length=14)
    created_at: datetime = moment()


class Project(SQLModel, table=True):
    """What an organisation does inside one programme."""

    __tablename__ = "project"
    __table_args__ = (
        CheckConstraint("confidentiality IN ('public', 'internal', 'confidential')", name="confidentiality_known"),
        CheckConstraint("nature IN ('none', 'personal', 'health')", name="nature_known"),
    )

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    organisation_id: str = reference("organisation.id")
    programme_id: str = reference("programme.id")
    confidentiality: str = Field(max_length=16)
    nature: str = Field(max_length=16)
    created_at: datetime = moment()


class Membership(SQLModel, table=True):
    """A person's part in a project."""

    __tablename__ = "membership"

    person_id: str = reference("person.id", primary_key=True)
    project_id: str = reference("project.id", primary_key=True)
    since: datetime = moment()
