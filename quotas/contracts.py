"""Contracts: a site's capacity comes into the ledger when it is signed; which of them gives a job its share."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select
from sqlmodel import Session

from quotas.amounts import CREDITS_PER_HOUR, hours_text
from quotas.charging import Rule, Size, rate_credits_per_s
from quotas.errors import ContractTooSmall
from quotas.ledger import CAPACITY, Movement, account_id, open_accounts
from quotas.models import Account, Contract
from quotas.posting import move
from storage.tables import new_id, utcnow

ALLOCATED = "allocated"

_contracts: Table = Contract.__table__  # type: ignore[attr-defined]
_accounts: Table = Account.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Capacity:
    """A contract as a submission sees it; `available` is in credits at the contract's own weight."""

    contract_id: str
    kind: str
    start_at: datetime
    end_at: datetime
    weight_thousandths: int
    available: int


@dataclass(frozen=True, slots=True)
class CapacityNeed:
    """What a job needs of a contract."""

    site_name: str
    gpu_class: str
    rule: Rule
    size: Size
    seconds: int
    """How long it may run at most, the kill grace included."""
    time_limit_s: int
    now: datetime
    free_hours_first: bool = False
    tasks: int = 1
    """Of an array: each of that size and so long."""
    waits_s: int = 0
    """How long it waits at least before it starts."""

    def credits_at(self, weight_thousandths: int) -> int:
        """Return what the job may use at most, counted by the same rule as on the award's side."""
        return self.tasks * rate_credits_per_s(self.rule, self.size, weight_thousandths) * self.seconds

    @property
    def gpu_seconds(self) -> int:
        """What that comes to in GPU-seconds of the class (CPU-seconds without GPU), rounded up."""
        return -(-self.credits_at(1000) // 1000)


def open_contract(session: Session, *, gpu_seconds: int, weight_thousandths: int, **facts: Any) -> Contract:
    """Enter a contract: its GPU-seconds of the class become credits at the weight of its signing."""
    capacity = gpu_seconds * weight_thousandths
    contract = Contract(
        id=new_id("ctr"),
        capacity_credits=capacity,
        weight_thousandths=weight_thousandths,
        created_at=utcnow(),
        **facts,
    )
    session.add(contract)
    open_accounts(session, [contract.id])
    movement = Movement(
        f"contract/{contract.id}", "contract", CAPACITY, account_id("available", contract.id), capacity, contract.id
    )
    move(session, movement, contract.created_at)
    return contract


def give_back(session: Session, contract: Contract, gpu_seconds: int, return_id: str) -> None:
    """Take capacity out of a contract again, as when hours were entered by mistake or the supplier takes them back.

    Raises:
        ContractTooSmall: it has less left.
    """
    amount = gpu_seconds * contract.weight_thousandths
    available = account_id("available", contract.id)
    try:
        move(
            session,
            Movement(f"contract-return/{return_id}", "contract-return", available, CAPACITY, amount, contract.id),
            utcnow(),
        )
    except ContractTooSmall:
        left = session.get_one(Account, available).balance // contract.weight_thousandths
        raise ContractTooSmall(
            f"contract {contract.id} has {_hours(left)} of {contract.gpu_class} left, {_hours(gpu_seconds)} were to go",
            f"give back at most {_hours(left)}",
        ) from None


_at_site = (
    select(
        _contracts.c.id,
        _contracts.c.kind,
        _contracts.c.start_at,
        _contracts.c.end_at,
        _contracts.c.weight_thousandths,
        _accounts.c.balance,
    )
    .join(_accounts, _accounts.c.id == "available:" + _contracts.c.id)
    .where(_contracts.c.site_id == bindparam("site_id"), _contracts.c.gpu_class == bindparam("gpu_class"))
)


def capacities(connection: Connection, site_id: str, gpu_class: str) -> list[Capacity]:
    """Return a site's contracts for a GPU class, whatever their period, with what is left of them."""
    rows = connection.execute(_at_site, {"site_id": site_id, "gpu_class": gpu_class})
    return [Capacity(*row) for row in rows]


def choose_contract(offers: Sequence[Capacity], need: CapacityNeed) -> Capacity:
    """Return the contract that gives a job its capacity: of those that last as long as it, the one that ends first.

    Free hours (`allocated`) come before bought ones where the programme says so. A hold never spans two.

    Raises:
        ContractTooSmall: says what is missing.
    """
    active = [offer for offer in offers if offer.start_at <= need.now < offer.end_at]
    if not active:
        raise ContractTooSmall(
            f"the Region has no contract for {need.gpu_class} at site {need.site_name} today",
            "ask your programme manager, or choose another site or GPU class",
        )
    needed_s = need.waits_s + need.time_limit_s
    lasting = [offer for offer in active if (offer.end_at - need.now).total_seconds() >= needed_s]
    if not lasting:
        left_min = int((max(offer.end_at for offer in active) - need.now).total_seconds()) // 60
        raise ContractTooSmall(
            f"the Region's contract for {need.gpu_class} at site {need.site_name} ends in {left_min} min, "
            f"before the job's time limit of {need.time_limit_s // 60} min{' after it begins' if need.waits_s else ''}",
            f"--time {left_min}" if left_min and not need.waits_s else "choose another site, or begin earlier",
        )
    able = [offer for offer in lasting if offer.available >= need.credits_at(offer.weight_thousandths)]
    if not able:
        raise contract_too_small(need, max(offer.available // offer.weight_thousandths for offer in lasting))
    return min(able, key=lambda offer: _order(offer, free_first=need.free_hours_first))


def contract_too_small(need: CapacityNeed, left_gpu_seconds: int) -> ContractTooSmall:
    """Say by how much a contract cannot give a hold's capacity."""
    return ContractTooSmall(
        f"the job may use {_hours(need.gpu_seconds)} of {need.gpu_class} "
        f"and the Region's contract at site {need.site_name} has {_hours(left_gpu_seconds)} left",
        f"ask for fewer {'tasks, fewer ' if need.tasks > 1 else ''}GPUs or less time, choose another site, "
        "or wait until running jobs settle",
    )


def _order(offer: Capacity, *, free_first: bool) -> tuple[bool, datetime, str]:
    return (free_first and offer.kind != ALLOCATED, offer.end_at, offer.contract_id)


def _hours(gpu_seconds: int) -> str:
    """Word GPU-seconds of one class as GPU-hours."""
    return hours_text(gpu_seconds * (CREDITS_PER_HOUR // 3600))
