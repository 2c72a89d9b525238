"""State aid: what companies declare, what an undertaking had, the register's lines, the letter."""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, Field

from broker.schemas.base import Day, Label, Schema

DECLARED_MAX = 500
"""Aids that one declaration may name."""


class DeclaredAidIn(Schema):
    """One aid that the company, or one linked with it, was granted."""

    granted_on: Day
    giver: Label
    value_micro_euros: int = Field(gt=0, le=10**15)
    """Gross, as a cash grant would be."""
    act_reference: Label
    regime: Literal["de-minimis", "de-minimis-agriculture", "de-minimis-fishery", "de-minimis-sgei", "exempted"] = (
        "de-minimis"
    )


class AidDeclarationIn(Schema):
    """All aids that a company declares to have had; an empty list declares that there were none."""

    declared_on: Day
    document: Label
    """Where the signed declaration is kept."""
    aids: list[DeclaredAidIn] = Field(max_length=DECLARED_MAX)


class AidDeclarationOut(BaseModel):
    """A declaration that stands."""

    id: str
    organisation: str
    declared_on: date
    document: str
    aids: int
    """How many aids it names."""
    entered_at: datetime


class CountedAidOut(BaseModel):
    """One de minimis aid, net of its reductions."""

    id: str
    granted_on: date
    organisation: str
    giver: str | None
    """None for a line of this register; else who gave it, by the company's declaration."""
    act_reference: str
    value_micro_euros: int


class AidStandingOut(BaseModel):
    """What an organisation's single undertaking had in the fullest window of years that holds a day.

    total = declared + counted; left = ceiling - total. Where no ceiling is set for the day, all of these are null.
    """

    organisation: str
    undertaking: list[str]
    """The names of all organisations that count as one, this one included."""
    on: date
    source: str | None
    years: int | None
    from_on: date | None
    to_on: date | None
    ceiling_micro_euros: int | None
    declared_micro_euros: int | None
    counted_micro_euros: int | None
    total_micro_euros: int | None
    left_micro_euros: int | None
    aids: list[CountedAidOut]
    declarations: list[AidDeclarationOut]
    may_be_granted: bool
    """Whether the organisation's own declaration is there, and young enough for a grant on that day."""


class AidLineOut(BaseModel):
    """A line of the register. `value_micro_euros` is below zero for a reduction, and there only."""

    id: str
    kind: Literal["grant", "supplement", "transfer", "reduction"]
    reduces_id: str | None
    award: str
    programme: str
    beneficiary: str
    siren: str | None
    siret: str | None
    foreign_id: str | None
    sector_naf: str | None
    granted_on: date
    entered_on: date
    credits: int
    micro_euros_per_hour: int
    public_thousandths: int
    value_micro_euros: int
    authority: str
    authority_siren: str
    instrument: str
    regime: Literal["de-minimis", "exempted"]
    scheme: str | None
    act_reference: str
    act_on: date


class AidCeilingOut(BaseModel):
    """A ceiling and where it comes from."""

    valid_from: date
    valid_until: date | None
    ceiling_micro_euros: int
    years: int
    source: str


class AidRulesOut(BaseModel):
    """The rules in force, which are settings of the broker."""

    ceilings: list[AidCeilingOut]
    declaration_days: int
    authority: str
    register_columns: dict[str, str]
    """Field of a line -> its title, in the register's order; `amount_euros` is `value_micro_euros` in euros."""
    register_source: str


class AidLetterOut(BaseModel):
    """The letter that tells a company of its aid, in French: a page that prints on A4, and plain text."""

    award: str
    organisation: str
    value_micro_euros: int
    html: str
    text: str
