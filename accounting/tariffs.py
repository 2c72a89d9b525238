"""What a charge is worth in euros, and who pays which part of it. Integers only: micro-euros, rounded down.

The tariff is that of the attempt's start, never split at midnight, and so are the programme's funding shares; the
weight is the one that the hold froze (docs/rules.md). Where no tariff is known the value is unknown, with the
reason, and never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table

from accounting.models import ChargeValue
from quotas.ledger import Posting
from quotas.programmes import Shares, shares_at
from quotas.rates import tariff_at

_values: Table = ChargeValue.__table__  # type: ignore[attr-defined]

NO_TARIFF = "no tariff of {gpu_class} at its site was known for the day of its start"
NO_START = "the site does not tell when it started"


@dataclass(frozen=True, slots=True)
class Euros:
    """A value in micro-euros and its parts, which sum up to it exactly."""

    value: int
    region: int
    company: int
    partner: int


@dataclass(frozen=True, slots=True)
class Valuation:
    """What a charge is worth, or why nobody knows. `shares` are those of the attempt's start."""

    weight_thousandths: int
    shares: Shares | None
    tariff: int | None
    euros: Euros | None
    unknown_reason: str | None


def value_micro_euros(charge_credits: int, weight_thousandths: int, tariff: int) -> int:
    """Return floor(charge × tariff / (weight × 3600)): the GPU-hours behind a charge times what one costs."""
    return charge_credits * tariff // (weight_thousandths * 3600)


def split(value: int, shares: Shares) -> Euros:
    """Divide a value by shares: by largest remainder, ties to the Region, then to the company; the sum is exact."""
    return divide(value, (shares.region, shares.company, shares.partner))


def divide(value: int, parts: tuple[int, int, int]) -> Euros:
    """Divide a value in proportion to parts that are not all zero, each rounded by largest remainder."""
    whole = sum(parts)
    floors = [value * part // whole for part in parts]
    remainders = [value * part % whole for part in parts]
    left = value - sum(floors)
    for number in sorted(range(3), key=lambda n: (-remainders[n], n))[:left]:
        floors[number] += 1
    return Euros(value, *floors)


class Rates:
    """Tariffs and shares as one transaction sees them, each looked up once."""

    def __init__(self, connection: Connection) -> None:
        @cache
        def tariff(site_id: str, gpu_class: str, at: datetime) -> int | None:
            return tariff_at(connection, site_id, gpu_class, at)

        @cache
        def shares(programme_id: str, at: datetime) -> Shares:
            return shares_at(connection, programme_id, at)

        self._tariff, self._shares = tariff, shares

    def value(self, record: Mapping[str, Any]) -> Valuation:
        """Value the charge of a usage record, given as its row."""
        charge, weight, started_at = record["charge_credits"], record["weight_thousandths"], record["started_at"]
        if started_at is None:
            nothing = Euros(0, 0, 0, 0) if charge == 0 else None
            return Valuation(weight, None, None, nothing, None if nothing else NO_START)
        shares = self._shares(record["programme_id"], started_at)
        tariff = self._tariff(record["site_id"], record["gpu_class"], started_at)
        if tariff is None:
            reason = NO_TARIFF.format(gpu_class=record["gpu_class"])
            return Valuation(weight, shares, None, None, reason)
        return Valuation(weight, shares, tariff, split(value_micro_euros(charge, weight, tariff), shares), None)


def value_row(usage_id: str, valuation: Valuation, at: datetime) -> dict[str, Any]:
    """Return the row that keeps a valuation beside its usage record."""
    shares, euros = valuation.shares, valuation.euros
    return {
        "usage_id": usage_id,
        "weight_thousandths": valuation.weight_thousandths,
        "region_thousandths": shares.region if shares else None,
        "company_thousandths": shares.company if shares else None,
        "partner_thousandths": shares.partner if shares else None,
        **amounts(valuation.tariff, euros),
        "unknown_reason": valuation.unknown_reason,
        "valued_at": at if euros else None,
    }


def amounts(tariff: int | None, euros: Euros | None) -> dict[str, int | None]:
    """Return the columns of a valuation's figures."""
    return {
        "tariff_micro_euros": tariff,
        "value_micro_euros": euros.value if euros else None,
        "region_micro_euros": euros.region if euros else None,
        "company_micro_euros": euros.company if euros else None,
        "partner_micro_euros": euros.partner if euros else None,
    }


def details(weight_thousandths: int, tariff: int | None, euros: Euros | None) -> str:
    """Word a valuation for the chain, which proves it: `weight=…;tariff=…;value=…;region=…;company=…;partner=…`."""
    known = f"weight={weight_thousandths}" + (f";tariff={tariff}" if tariff is not None else "")
    if euros is None:
        return f"{known};value=unknown"
    return f"{known};value={euros.value};region={euros.region};company={euros.company};partner={euros.partner}"


def valued(posting: Posting, usage_id: str, valuation: Valuation, at: datetime) -> Posting:
    """Return a charge's posting with its value: in a row of its own, and in the details of its first transfer."""
    text = details(valuation.weight_thousandths, valuation.tariff, valuation.euros)
    movements = (
        *(replace(movement, details=text) for movement in posting.movements[:1]),
        *posting.movements[1:],
    )
    return replace(posting, movements=movements, rows=(*posting.rows, (_values, value_row(usage_id, valuation, at))))
