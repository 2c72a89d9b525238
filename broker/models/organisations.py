"""Organisations, projects and who belongs to them."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from broker.models.columns import moment, reference

KINDS = ("company", "laboratory", "school", "public-body", "team")
SIZES = ("micro", "pme", "eti", "ge")
"""In French law's words (décret 2008-1354): microentreprise, petite et moyenne, taille intermédiaire, grande."""
MEMBER_ROLES = ("lead", "member", "viewer", "coach")

_OPEN = text("end_at IS NULL")


def _one_of(column: str, words: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


class Organisation(SQLModel, table=True):
    """Who is helped. Several may have one SIRET, as the teams of a laboratory do."""

    __tablename__ = "organisation"
    __table_args__ = (
        CheckConstraint(_one_of("kind", KINDS), name="kind_known"),
        CheckConstraint(f"size IS NULL OR {_one_of('size', SIZES)}", name="size_known"),
        CheckConstraint("siret IS NULL OR foreign_id IS NULL", name="one_identifier"),
        CheckConstraint("(foreign_id IS NULL) = (foreign_country IS NULL)", name="foreign_id_with_country"),
        Index("ix_organisation_siret", "siret"),
    )

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    full_name: str | None = Field(default=None, max_length=200)
    kind: str = Field(max_length=16)
    size: str | None = Field(default=None, max_length=8)
    """None: nobody said."""
    siret: str | None = Field(default=None, max_length=14)
    foreign_country: str | None = Field(default=None, max_length=2)
    foreign_id: str | None = Field(default=None, max_length=40)
    naf: str | None = Field(default=None, max_length=6)
    departement: str | None = Field(default=None, max_length=3)
    """Of the establishment, in France."""
    created_at: datetime = moment()


class OrganisationLink(SQLModel, table=True):
    """Two organisations that are one undertaking for a time, beside those of one SIREN, which always are."""

    __tablename__ = "organisation_link"
    __table_args__ = (
        CheckConstraint("organisation_id <> other_id", name="two_organisations"),
        CheckConstraint("until IS NULL OR until >= since", name="ends_after_start"),
    )

    id: str = Field(primary_key=True, max_length=32)
    organisation_id: str = reference("organisation.id", index=True)
    """The lesser of the two ids, so that a pair is found whichever way it is named."""
    other_id: str = reference("organisation.id", index=True)
    since: datetime = moment()
    until: datetime | None = moment(nullable=True)
    """None: no end is known. Equal to `since`: it was entered by mistake and never held."""
    basis: str = Field(max_length=200)
    """What says so: a share of the capital, a group's accounts, a declaration."""


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
    """A person's part in a project for a time. Rows of one person and project never overlap."""

    __tablename__ = "membership"
    __table_args__ = (
        CheckConstraint(_one_of("role", MEMBER_ROLES), name="role_known"),
        CheckConstraint("end_at IS NULL OR end_at >= start_at", name="ends_after_start"),
        Index("ix_membership_person_id_project_id", "person_id", "project_id"),
        Index("uq_membership_open", "person_id", "project_id", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
    )

    id: str = Field(primary_key=True, max_length=32)
    person_id: str = reference("person.id")
    project_id: str = reference("project.id", index=True)
    role: str = Field(max_length=8)
    start_at: datetime = moment()
    end_at: datetime | None = moment(nullable=True)
    """None: no end is known. Equal to `start_at`: it was taken back before it began."""
