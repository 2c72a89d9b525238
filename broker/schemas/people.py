"""People and tokens."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from broker.identifiers import EMAIL_LENGTH_MAX, checked_email
from broker.schemas.base import (
    Label,
    Role,
    Schema,
    Slug,
)
from broker.schemas.projects import MemberRole

Email = Annotated[str, StringConstraints(min_length=3, max_length=EMAIL_LENGTH_MAX), AfterValidator(checked_email)]


class PersonIn(Schema):
    """Somebody who may use the broker."""

    name: Slug
    full_name: Label | None = None
    email: Email | None = None
    roles: list[Role] = Field(default=["engineer"], min_length=1)


class PersonChange(Schema):
    """New facts of a person: what is left out stays, what `clear` names is erased."""

    full_name: Label | None = None
    email: Email | None = None
    clear: list[Literal["full_name", "email"]] = Field(default=[])

    @model_validator(mode="after")
    def _changes_something_once(self) -> "PersonChange":
        given = self.model_dump(exclude={"clear"}, exclude_none=True)
        if twice := set(given) & set(self.clear):
            raise ValueError(f"{', '.join(sorted(twice))}: give a new value or clear it, not both")
        if not given and not self.clear:
            raise ValueError("nothing is to be changed: give a fact, or name one to clear")
        return self


class PersonOut(BaseModel):
    """A person and what they may do; without the address of mail, since answers to a POST are kept for 24 hours."""

    id: str
    name: str
    full_name: str | None
    roles: list[Role]
    created_at: datetime


class PersonDetail(PersonOut):
    """A person as lists show them."""

    email: str | None


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


class RoleIn(BaseModel):
    """What the caller is in a project; `until` None: no end is known."""

    project: str
    role: MemberRole
    until: datetime | None


class MeOut(BaseModel):
    """Who the caller is, and the projects that they belong to at this moment."""

    person: PersonDetail
    projects: list[str]
    memberships: list[RoleIn]
