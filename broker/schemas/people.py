"""People and tokens."""

from datetime import datetime

from pydantic import BaseModel, Field

from broker.schemas.base import (
    Label,
    Role,
    Schema,
    Slug,
)


class PersonIn(Schema):
    """Somebody who may use the broker."""

    name: Slug
    full_name: Label | None = None
    roles: list[Role] = Field(default=["engineer"], min_length=1)


class PersonOut(BaseModel):
    """A person and what they may do."""

    id: str
    name: str
    full_name: str | None
    roles: list[Role]
    created_at: datetime


class TokenIn(Schema):
    """A token for a person; without an end date it is valid for a year."""

    person: Slug
    label: Label = "token"
    days: int = Field(default=365, ge=1, le=3650)


class TokenOut(BaseModel):
    """A token as it may be shown at any time."""

    id: str
    person: str
    label: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class TokenSecretOut(TokenOut):
    """A new token; `token` is shown this once."""

    token: str


class MeOut(BaseModel):
    """Who the caller is."""

    person: PersonOut
    projects: list[str]
