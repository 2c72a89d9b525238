"""Organisations, and the links that make several of them one undertaking."""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from broker.identifiers import checked_departement, checked_foreign, checked_naf, checked_siret
from broker.schemas.base import Day, Label, Schema, Slug

Kind = Literal["company", "laboratory", "school", "public-body", "team"]
Size = Literal["micro", "pme", "eti", "ge"]
"""French law's words: microentreprise, petite et moyenne, de taille intermédiaire, grande (décret 2008-1354)."""
Typed = Annotated[str, StringConstraints(min_length=1, max_length=60)]
Siret = Annotated[Typed, AfterValidator(checked_siret)]
Naf = Annotated[Typed, AfterValidator(checked_naf)]
Departement = Annotated[Typed, AfterValidator(checked_departement)]
Clearable = Literal["full_name", "size", "siret", "foreign", "naf", "departement"]


class _Facts(Schema):
    """What may be known of an organisation; digits may be typed with spaces."""

    full_name: Label | None = None
    size: Size | None = None
    siret: Siret | None = None
    foreign_country: Typed | None = None
    foreign_id: Typed | None = None
    """In the form of its country, such as a VAT number or a trade register's entry; with `foreign_country`."""
    naf: Naf | None = None
    departement: Departement | None = None

    @model_validator(mode="after")
    def _has_one_identifier(self) -> "_Facts":
        if (self.foreign_country is None) != (self.foreign_id is None):
            raise ValueError("foreign_country and foreign_id go together: give both, or none")
        if self.foreign_country is not None and self.foreign_id is not None:
            if self.siret is not None:
                raise ValueError("an organisation has a SIRET or a foreign identifier, not both: give the one it has")
            self.foreign_country, self.foreign_id = checked_foreign(self.foreign_country, self.foreign_id)
        return self


class OrganisationIn(_Facts):
    """Who is helped; without an identifier where there is none yet."""

    name: Slug
    kind: Kind = "company"


class OrganisationChange(_Facts):
    """New facts of an organisation: what is left out stays, what `clear` names becomes unknown."""

    kind: Kind | None = None
    clear: list[Clearable] = Field(default=[])

    @model_validator(mode="after")
    def _changes_something_once(self) -> "OrganisationChange":
        given = self.model_dump(exclude={"clear"}, exclude_none=True)
        named = {"foreign" if name.startswith("foreign_") else name for name in given}
        if twice := named & set(self.clear):
            raise ValueError(f"{', '.join(sorted(twice))}: give a new value or clear it, not both")
        if not named and not self.clear:
            raise ValueError("nothing is to be changed: give a fact, or name one to clear")
        return self


class OrganisationOut(BaseModel):
    """An organisation."""

    id: str
    name: str
    full_name: str | None
    kind: Kind
    size: Size | None
    """None: nobody said."""
    siret: str | None
    foreign_country: str | None
    foreign_id: str | None
    naf: str | None
    departement: str | None
    departement_name: str | None
    """For the Region's eight only."""
    is_in_region: bool | None
    """None where the département is not known."""
    identifier_problem: str | None
    """Why the identifier cannot be right, or that there is none yet; None where its form is good."""
    created_at: datetime


class LinkIn(Schema):
    """Another organisation that belongs to the same single undertaking from a day on (Regulation (EU) 2023/2831)."""

    other: Slug
    basis: Label
    """What says so: a share of the capital, a group's accounts, a declaration."""
    from_on: Day | None = None
    """Today when left out; may lie in the past, since it says what was."""
    to_on: Day | None = None
    """The last day, included."""

    @model_validator(mode="after")
    def _ends_after_start(self) -> "LinkIn":
        if self.from_on is not None and self.to_on is not None and self.to_on < self.from_on:
            raise ValueError("to_on is before from_on")
        return self


class LinkEndIn(Schema):
    """The end of the link with another organisation."""

    other: Slug
    on: Day | None = None
    """The last day, included; yesterday when left out. The day before the first: it never held."""


class LinkOut(BaseModel):
    """A link, seen from one of the two organisations."""

    id: str
    other: str
    basis: str
    from_on: date
    to_on: date | None
    holds: bool
    """Today."""


class OrganisationDetail(OrganisationOut):
    """An organisation with its links and its single undertaking of today."""

    siren: str | None
    links: list[LinkOut]
    undertaking: list[str]
    """Names of all organisations that count as one with it, itself included."""
