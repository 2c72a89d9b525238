"""The settings of State aid, `[aid]`: ceilings by date, who grants, the register's columns; each with its source."""

from datetime import date
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.identifiers import checked_siren
from quotas.aid_arithmetic import AidCeiling, AidRules

RegisterColumns = dict[str, Annotated[str, Field(min_length=1, max_length=80)]]
MICRO_EUROS = 1_000_000

REGISTER_COLUMNS: RegisterColumns = {
    "id": "Identifiant de la ligne",
    "beneficiary": "Bénéficiaire",
    "siren": "SIREN",
    "siret": "SIRET",
    "foreign_id": "Identifiant étranger",
    "amount_euros": "Montant de l'aide (euros)",
    "granted_on": "Date d'octroi",
    "authority": "Autorité d'octroi",
    "authority_siren": "SIREN de l'autorité",
    "instrument": "Instrument d'aide",
    "sector_naf": "Secteur (NAF)",
    "regime": "Régime",
    "scheme": "Numéro du régime",
    "act_reference": "Référence de l'acte",
    "act_on": "Date de l'acte",
    "kind": "Nature de la ligne",
    "reduces_id": "Ligne diminuée",
    "award": "Attribution",
    "programme": "Dispositif",
    "entered_on": "Date de saisie",
}
"""Field of a register's line -> its title. The first to the eleventh are those of Regulation (EU) 2023/2831, art. 6."""


class AidCeilingSetting(BaseModel):
    """A ceiling of de minimis aid per single undertaking, for grants between two days, both included."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    valid_from: date = Field(alias="from")
    valid_until: date | None = Field(default=None, alias="until")
    ceiling_euros: int = Field(ge=0, le=10**9)
    years: int = Field(ge=1, le=10)
    source: str = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _ends_after_start(self) -> "AidCeilingSetting":
        if self.valid_until is not None and self.valid_until < self.valid_from:
            raise ValueError("until lies before from")
        return self


def _general_ceiling() -> list[AidCeilingSetting]:
    return [
        AidCeilingSetting(
            valid_from=date(2024, 1, 1),
            valid_until=date(2030, 12, 31),  # art. 8: the Regulation applies until then
            ceiling_euros=300_000,
            years=3,
            source="Regulation (EU) 2023/2831, art. 3(2)",
        )
    ]


class AidSettings(BaseModel):
    """Rules of State aid. Each has a default, whose source stands beside it."""

    model_config = ConfigDict(extra="forbid")

    ceilings: list[AidCeilingSetting] = Field(default_factory=_general_ceiling, max_length=50)
    """By date: an older regulation's may stand beside the one in force."""
    declaration_days: int = Field(default=365, ge=0, le=3660)
    """How old a company's declaration may be on the day of a grant. A rule of the house: the Regulation asks for one
    before each grant (art. 7(4)), and says nothing of its age."""
    keep_years: int = Field(default=10, ge=1, le=50)
    """For how long a company is asked to keep its letter: as long as the register keeps the line (art. 6)."""
    authority: str = Field(default="Région Île-de-France", min_length=1, max_length=200)
    authority_siren: str = "237500079"
    """INSEE, répertoire Sirene."""
    instrument: str = Field(default="services subventionnés (temps de calcul)", min_length=1, max_length=200)
    register_columns: RegisterColumns = Field(default_factory=lambda: dict(REGISTER_COLUMNS), min_length=1)
    """The register's columns in their order, and their titles."""
    register_source: str = (
        "Regulation (EU) 2023/2831, art. 6; décret n° 2025-1361 du 26 décembre 2025 (plateforme des aides d'État)"
    )

    @model_validator(mode="after")
    def _is_known(self) -> "AidSettings":
        unknown = sorted(set(self.register_columns) - set(REGISTER_COLUMNS))
        if unknown:
            raise ValueError(
                f"register_columns: no field {', '.join(unknown)}; known are {', '.join(REGISTER_COLUMNS)}"
            )
        self.authority_siren = checked_siren(self.authority_siren)
        return self

    def rules(self) -> AidRules:
        """Return the rules as the arithmetic takes them."""
        return AidRules(
            ceilings=tuple(
                AidCeiling(
                    valid_from=ceiling.valid_from,
                    valid_until=ceiling.valid_until,
                    ceiling_micro_euros=ceiling.ceiling_euros * MICRO_EUROS,
                    years=ceiling.years,
                    source=ceiling.source,
                )
                for ceiling in self.ceilings
            ),
            authority=self.authority,
            declaration_days=self.declaration_days,
        )
