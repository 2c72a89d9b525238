"""Projects and their members."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, model_validator

from broker.schemas.base import Confidentiality, Day, Nature, Schema, Slug

MemberRole = Literal["lead", "member", "viewer", "coach"]
"""What each may: broker/memberships.py."""


class ProjectIn(Schema):
    """What an organisation does inside one programme."""

    name: Slug
    organisation: Slug
    programme: Slug
    confidentiality: Confidentiality = "internal"
    nature: Nature = "none"


class ProjectOut(BaseModel):
    """A project; `members` are those of this moment, whatever their role."""

    id: str
    name: str
    organisation: str
    programme: str
    confidentiality: Confidentiality
    nature: Nature
    members: list[str]
    created_at: datetime


class MemberIn(Schema):
    """A person who joins a project, from a day to a day in Europe/Paris, the last included."""

    person: Slug
    role: MemberRole = "member"
    from_on: Day | None = None
    """Now when left out, and when it is today."""
    to_on: Day | None = None
    """Without end when left out."""

    @model_validator(mode="after")
    def _ends_after_start(self) -> "MemberIn":
        if self.from_on is not None and self.to_on is not None and self.to_on < self.from_on:
            raise ValueError("to_on is before from_on")
        return self


class LeaveIn(Schema):
    """A person who leaves a project: at once, or with a day, included."""

    person: Slug
    on: Day | None = None


class MemberOut(BaseModel):
    """A person's part in a project for a time."""

    id: str
    project: str
    person: str
    role: MemberRole
    start_at: datetime
    end_at: datetime | None
    """None: no end is known. Equal to `start_at`: taken back before it began."""
    holds: bool
    """At this moment."""
