"""People and their tokens."""

from datetime import datetime

from sqlalchemy import (
    JSON,
    Column,
)
from sqlmodel import Field, SQLModel

from broker.models.columns import moment, reference


class Person(SQLModel, table=True):
    """Somebody who may use the broker."""

    __tablename__ = "person"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=40, unique=True)
    full_name: str | None = Field(default=None, max_length=200)
    email: str | None = Field(default=None, max_length=254)
    """May be erased at any time: nothing refers to it, and no kept answer holds it."""
    roles: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = moment()


class ApiToken(SQLModel, table=True):
    """A token, of which only the SHA-256 is kept; the id is the part that it is looked up by."""

    __tablename__ = "api_token"

    id: str = Field(primary_key=True, max_length=16)
    sha256: str = Field(max_length=64)
    person_id: str = reference("person.id", index=True)
    label: str = Field(max_length=200)
    created_at: datetime = moment()
    expires_at: datetime = moment()
    revoked_at: datetime | None = moment(nullable=True)
