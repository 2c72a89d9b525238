"""What is left: an award's balances in one query, and in hours of each GPU class."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlmodel import Session, col, select

from quotas.models import Account


@dataclass(frozen=True, slots=True)
class Balances:
    """An award's credits. What it was given, less what went back = available + held + consumed - overrun, always."""

    available: int
    held: int
    consumed: int
    overrun: int
    """What jobs used beyond their holds."""

    @property
    def total(self) -> int:
        """Granted, supplements and transfers in, less transfers out, reclaimed and expired credits."""
        return self.available + self.held + self.consumed - self.overrun


NOTHING = Balances(0, 0, 0, 0)
"""Of an award that is not granted, which has no accounts yet."""


def balances_of(session: Session, award_ids: Iterable[str]) -> dict[str, Balances]:
    """Return the balances of awards by id."""
    wanted = select(Account.owner_id, Account.kind, Account.balance).where(col(Account.owner_id).in_(list(award_ids)))
    by_award: dict[str, dict[str, int]] = {}
    for owner_id, kind, balance in session.exec(wanted):
        by_award.setdefault(owner_id, {})[kind] = balance
    return {id_: Balances(k["available"], k["held"], k["consumed"], -k["overrun"]) for id_, k in by_award.items()}


def seconds_by_class(available: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Return how many seconds one GPU of each class could run on what is available, rounded down.

    `weights` are thousandths by class (quotas.programmes.weights).
    """
    return {name: available // weight for name, weight in sorted(weights.items())}
