"""Organisations, projects and their members."""

from datetime import datetime

from pydantic import BaseModel, Field

from broker.schemas.base import (
    Confidentiality,
    Label,
    Nature,
    Schema,
    Slug,
)


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
