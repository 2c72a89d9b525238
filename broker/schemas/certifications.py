"""Certifications of sites' services."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from broker.schemas.base import Day, Label, Schema, Sentences, Slug

Scheme = Literal["secnumcloud", "hds", "iso-27001"]
Scope = Literal["computing", "storage"]
DataAxisValue = Literal["internal", "confidential", "personal", "health"]
"""What may ask for a certified service; public data never does."""
VERSION_PATTERN = r"^[0-9]{1,4}(\.[0-9]{1,4}){0,3}$"
Version = Annotated[str, StringConstraints(pattern=VERSION_PATTERN)]


class CertificationIn(Schema):
    """A proof that a service of a site meets a scheme between two days, as its certificate says."""

    site: Slug
    service: Label
    """What was certified, in the certificate's words: a site may have several services."""
    scheme: Scheme
    version: Version
    scope: list[Scope] = Field(min_length=1)
    """What of the service it covers."""
    document: Label
    """Where the certificate is kept: a reference, never the file."""
    start_on: Day
    end_on: Day

    @field_validator("scope")
    @classmethod
    def _once(cls, value: list[Scope]) -> list[Scope]:
        if len(set(value)) < len(value):
            raise ValueError("name each part of the scope once")
        return value

    @model_validator(mode="after")
    def _has_a_period(self) -> "CertificationIn":
        if self.end_on < self.start_on:
            raise ValueError("end_on is before start_on")
        return self


class WithdrawIn(Schema):
    """Why a certification counts no longer."""

    reason: Sentences


class CertificationOut(BaseModel):
    """A certification and whether it counts."""

    id: str
    site: str
    service: str
    scheme: str
    version: str
    scope: list[str]
    document: str
    start_at: datetime
    end_at: datetime
    state: str
    """`entered`: waits for a second operator; `valid`; `to come`; `ended`; `withdrawn`."""
    entered_by: str
    entered_at: datetime
    confirmed_by: str | None
    confirmed_at: datetime | None
    withdrawn_by: str | None
    withdrawn_at: datetime | None
    withdrawn_why: str | None
