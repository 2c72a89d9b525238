"""A hold's life as postings: open, settle an attempt, release the rest. Pure: nothing is read or written.

A hold has two sides, moved in one posting: the award that pays, and the site's contract that gives the
capacity. Each counts in credits at its own weight: the award's is that of the hold's moment, the contract's
that of its signing (docs/rules.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from quotas.ledger import Draw, Guard, Movement, Posting, account_id

Rows = tuple[tuple[Table, Mapping[str, Any]], ...]
CONTRACT = "contract-"
"""What the kinds and ids of the contract side's transfers begin with."""


@dataclass(frozen=True, slots=True)
class Side:
    """Who stands behind one side of a hold, with how many credits and at which weight in thousandths."""

    owner_id: str
    amount: int
    weight_thousandths: int


@dataclass(frozen=True, slots=True)
class HoldLeft:
    """A hold and what is left of it on each side, in credits; `contract` is None for one older than contracts."""

    job_id: str
    award: Side
    contract: Side | None = None


def open_hold(
    job_id: str, award: Side, contract: Side | None, rows: Rows = (), guards: tuple[Guard, ...] = ()
) -> Posting:
    """Set credits aside for a job, of its award and of its site's contract: available → held, both or neither."""
    row = {
        "id": job_id,
        "award_id": award.owner_id,
        "amount": award.amount,
        "remaining": award.amount,
        "weight_thousandths": award.weight_thousandths,
        "contract_id": contract.owner_id if contract else None,
        "contract_amount": contract.amount if contract else None,
        "contract_remaining": contract.amount if contract else None,
        "contract_weight_thousandths": contract.weight_thousandths if contract else None,
    }
    movements = tuple(
        _movement(prefix, "hold", job_id, side, ("available", "held"), side.amount, job_id)
        for prefix, side in _sides(award, contract)
    )
    return Posting(movements=movements, holds=(row,), rows=rows, guards=guards)


def top_up(job_id: str, award: Side, contract: Side | None, time_limit_s: int) -> Posting:
    """Set further credits aside for a job that was given more time: available → held, both sides or neither.

    The transfers' ids name the new limit, so a replay is a no-op.
    """
    movements = tuple(
        _movement(prefix, "hold", f"{job_id}/{time_limit_s}", side, ("available", "held"), side.amount, job_id)
        for prefix, side in _sides(award, contract)
    )
    return Posting(movements=movements, top_ups={job_id: Draw(award.amount, contract.amount if contract else 0)})


def settle(
    left: HoldLeft,
    charge: int,
    contract_charge: int,
    usage_id: str,
    rows: Rows = (),
    details: str | None = None,
) -> Posting:
    """Charge one attempt to both sides: from the hold as far as it reaches, the rest from `overrun` in plain sight.

    The transfers' ids come from the usage record's, so a replay is a no-op. A charge of nothing is a posting
    without movements: its rows are still written. `details` stand on the award's first transfer.
    """
    charges = (charge, contract_charge)
    movements: list[Movement] = []
    covered = [0, 0]
    for number, (prefix, side) in enumerate(_sides(left.award, left.contract)):
        covered[number] = min(charges[number], side.amount)
        parts = (("settle", "held", covered[number]), ("overrun", "overrun", charges[number] - covered[number]))
        for kind, source, amount in parts:
            if amount:
                said = None if movements else details
                movements.append(
                    _movement(prefix, kind, usage_id, side, (source, "consumed"), amount, left.job_id, said)
                )
    return Posting(movements=tuple(movements), draws=_draws(left.job_id, *covered), rows=rows)


def release(left: HoldLeft, rows: Rows = ()) -> Posting:
    """Give back to both sides what a job did not use: held → available."""
    sides = _sides(left.award, left.contract)
    movements = tuple(
        _movement(prefix, "release", left.job_id, side, ("held", "available"), side.amount, left.job_id)
        for prefix, side in sides
        if side.amount
    )
    return Posting(movements=movements, draws=_draws(left.job_id, *(side.amount for _, side in sides)), rows=rows)


def after(left: HoldLeft, charge: int, contract_charge: int) -> HoldLeft:
    """Return what is left of a hold after a charge to each side."""
    contract = _less(left.contract, contract_charge) if left.contract else None
    return HoldLeft(left.job_id, _less(left.award, charge), contract)


def _less(side: Side, charge: int) -> Side:
    return Side(side.owner_id, side.amount - min(side.amount, charge), side.weight_thousandths)


def _sides(award: Side, contract: Side | None) -> tuple[tuple[str, Side], ...]:
    return (("", award), (CONTRACT, contract)) if contract else (("", award),)


def _draws(job_id: str, amount: int, contract_amount: int = 0) -> dict[str, Draw]:
    return {job_id: Draw(amount, contract_amount)} if amount or contract_amount else {}


def _movement(
    prefix: str,
    kind: str,
    id_: str,
    side: Side,
    accounts: tuple[str, str],
    amount: int,
    reference_id: str,
    details: str | None = None,
) -> Movement:
    debit, credit = accounts
    return Movement(
        id=f"{prefix}{kind}/{id_}",
        kind=f"{prefix}{kind}",
        debit_id=account_id(debit, side.owner_id),
        credit_id=account_id(credit, side.owner_id),
        amount=amount,
        reference_id=reference_id,
        details=details,
    )
