"""The ledger: double entry in integer credits, one hash chain, and movements decided in groups.

A posting is decided as a whole or not at all. The chain's head is locked first, then accounts in the order
of their ids, so that two writers can never wait for each other and no balance is read before it is ours.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from hashlib import sha256
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Select, Table, bindparam, insert, select, update
from sqlmodel import Session

from quotas.errors import (
    AwardTooSmall,
    ContractTooSmall,
    HoldTooSmall,
    ProgrammeTooSmall,
    QuotaError,
    TransferReused,
)
from quotas.models import BELOW_ZERO_KINDS, DETAILS_MAX, Account, ChainHead, Hold, Transfer
from storage.database import insert_rows, rows_of, update_column
from storage.tables import microseconds

GENESIS = "0" * 64
TREASURY = "treasury:region"
CAPACITY = "treasury:contracts"
"""Where the capacity of contracts comes from: below zero by as much as the Region has ever contracted."""
_PAIR = r"[a-z][a-z0-9_]*=[!#-&(-:<-\[\]-{}~]+"  # any printable ASCII but the space and "';\|
_DETAILS = re.compile(f"{_PAIR}(;{_PAIR})*")

_accounts: Table = Account.__table__  # type: ignore[attr-defined]
_transfers: Table = Transfer.__table__  # type: ignore[attr-defined]
_holds: Table = Hold.__table__  # type: ignore[attr-defined]
_head: Table = ChainHead.__table__  # type: ignore[attr-defined]

_STANDING = (_transfers.c.id, _transfers.c.debit_id, _transfers.c.credit_id, _transfers.c.amount)
_BALANCES = (_accounts.c.id, _accounts.c.kind, _accounts.c.balance)
_REMAINING = (_holds.c.id, _holds.c.remaining, _holds.c.contract_remaining)
_locked_head = select(_head.c.sequence, _head.c.hash).with_for_update()
_top_up = (
    update(_holds)
    .where(_holds.c.id == bindparam("key"))
    .values(
        amount=_holds.c.amount + bindparam("more"),
        remaining=_holds.c.remaining + bindparam("more"),
        contract_amount=_holds.c.contract_amount + bindparam("contract_more"),
        contract_remaining=_holds.c.contract_remaining + bindparam("contract_more"),
    )
)
_set_head = update(_head).values(sequence=bindparam("new_sequence"), hash=bindparam("new_hash"))

_SHORT: dict[str, type[QuotaError]] = {
    "available": AwardTooSmall,
    "held": HoldTooSmall,
    "programme": ProgrammeTooSmall,
}


@dataclass(frozen=True, slots=True)
class Movement:
    """One transfer as its caller wants it: `amount` credits from the debited to the credited account."""

    id: str
    kind: str
    debit_id: str
    credit_id: str
    amount: int
    reference_id: str
    details: str | None = None
    """What else the chain shall prove: `key=value` pairs joined by `;`, opaque ids and figures only."""

    def __post_init__(self) -> None:
        """Refuse details that the chain's text could not carry.

        Raises:
            ValueError: the caller's own defect; no person's words get here.
        """
        if self.details is not None and not is_details(self.details):
            raise ValueError(f"details must be key=value pairs of at most {DETAILS_MAX} characters: {self.details!r}")


@dataclass(frozen=True, slots=True)
class Draw:
    """Credits taken out of a hold, on the award's side and on the contract's."""

    amount: int
    contract_amount: int = 0


@dataclass(frozen=True, slots=True)
class Guard:
    """A ceiling that a posting must stay under, counted under the chain head's lock."""

    key: str
    """Postings of one group whose guards have the same key are counted together."""
    in_use: Select[Any]
    """Selects one number: what is in use before the group."""
    amount: int
    ceiling: int
    refusal: Callable[[int], QuotaError]
    """Makes the refusal from what is in use."""


@dataclass(frozen=True, slots=True)
class Posting:
    """Movements that stand or fall together, with the rows that are written only if they stand."""

    movements: tuple[Movement, ...]
    holds: tuple[Mapping[str, Any], ...] = ()
    """New rows of `hold`."""
    draws: Mapping[str, Draw] = field(default_factory=dict)
    """By hold id."""
    top_ups: Mapping[str, Draw] = field(default_factory=dict)
    """By hold id: what is set aside further."""
    rows: tuple[tuple[Table, Mapping[str, Any]], ...] = ()
    """Rows of the caller's own tables, written in this order."""
    guards: tuple[Guard, ...] = ()
    """Ceilings that refuse it."""


class Done(Enum):
    """What became of a posting that was not refused."""

    POSTED = "posted"
    REPLAYED = "replayed"
    """Its transfers stand already: nothing was written again."""


Outcome = Done | QuotaError


def account_id(kind: str, owner_id: str) -> str:
    """Return the id of an owner's account of a kind."""
    return f"{kind}:{owner_id}"


def open_account(session: Session, kind: str, owner_id: str) -> None:
    """Open an empty account in credits."""
    session.execute(insert(_accounts), [_account(kind, owner_id)])


def open_accounts(session: Session, owner_ids: Sequence[str]) -> None:
    """Open the four empty accounts of each award or contract."""
    kinds = ("available", "held", "consumed", "overrun")
    session.execute(insert(_accounts), [_account(kind, id_) for id_ in owner_ids for kind in kinds])


def _account(kind: str, owner_id: str) -> dict[str, Any]:
    return {"id": account_id(kind, owner_id), "kind": kind, "owner_id": owner_id, "unit": "credit", "balance": 0}


def open_ledger(session: Session) -> None:
    """Write the chain's head and the treasury, once in the life of a region."""
    session.execute(insert(_head), [{"id": 1, "sequence": 0, "hash": GENESIS}])
    open_account(session, "treasury", "region")


def lock_head(connection: Connection) -> tuple[int, str]:
    """Take the lock of every movement, before any other of the money's rows; return the head's sequence and hash."""
    row = connection.execute(_locked_head).one()
    return row.sequence, row.hash


def is_details(text: str) -> bool:
    """Say whether a text may be a transfer's details: no `|`, quote, backslash or control character, ASCII only."""
    return len(text) <= DETAILS_MAX and _DETAILS.fullmatch(text) is not None


def link_hash(previous_hash: str, sequence: int, movement: Movement, at: datetime) -> str:
    """Return the hash of a transfer: SHA-256 over the one before it and its own fields, opaque ids only.

    Details that are not there add nothing, not even a separator: a row without them hashes as it did before
    there were any.
    """
    fields = [
        previous_hash,
        str(sequence),
        movement.id,
        movement.kind,
        movement.debit_id,
        movement.credit_id,
        str(movement.amount),
        movement.reference_id,
        str(microseconds(at)),
    ]
    if movement.details is not None:
        fields.append(movement.details)
    return sha256("|".join(fields).encode()).hexdigest()


def post(connection: Connection, postings: Sequence[Posting], at: datetime) -> list[Outcome]:
    """Decide postings one by one in their order and write those that stand; the caller commits.

    A refusal is an outcome, not an exception, so that one refused posting leaves its group alone.
    """
    group = _Group(connection, postings)
    outcomes = [group.decide(posting) for posting in postings]
    group.write(at)
    return outcomes


class _Group:
    """Postings under one lock: what stands in the database, and what is to be written."""

    def __init__(self, connection: Connection, postings: Sequence[Posting]) -> None:
        self._connection = connection
        self._sequence, self._hash = lock_head(connection)
        movements = [movement for posting in postings for movement in posting.movements]
        self._standing = self._standing_transfers([movement.id for movement in movements])
        self._kinds, self._balances = self._lock_accounts(movements)
        self._two_sided: set[str] = set()
        self._remaining = self._remaining_of(chain.from_iterable(p.draws for p in postings))
        self._before = dict(self._balances)
        self._in_use: dict[str, int] = {}
        self._accepted: list[Posting] = []

    def _standing_transfers(self, ids: Sequence[str]) -> dict[str, tuple[str, str, int]]:
        rows = rows_of(self._connection, _STANDING, ids)
        return {row.id: (row.debit_id, row.credit_id, row.amount) for row in rows}

    def _lock_accounts(self, movements: Iterable[Movement]) -> tuple[dict[str, str], dict[str, int]]:
        ids = sorted({account for m in movements for account in (m.debit_id, m.credit_id)})
        kinds: dict[str, str] = {}
        balances: dict[str, int] = {}
        for row in rows_of(self._connection, _BALANCES, ids, lock=True):
            kinds[row.id], balances[row.id] = row.kind, row.balance
        return kinds, balances

    def _remaining_of(self, hold_ids: Iterable[str]) -> dict[str, Draw]:
        remaining: dict[str, Draw] = {}
        for row in rows_of(self._connection, _REMAINING, sorted(set(hold_ids))):
            remaining[row.id] = Draw(row.remaining, row.contract_remaining or 0)
            if row.contract_remaining is not None:
                self._two_sided.add(row.id)
        return remaining

    def decide(self, posting: Posting) -> Outcome:
        """Say whether a posting stands after those before it, and move the balances if it does."""
        ours = {m.id: (m.debit_id, m.credit_id, m.amount) for m in posting.movements}
        standing = {id_: self._standing[id_] for id_ in ours if id_ in self._standing}
        if standing:
            if standing == ours:
                return Done.REPLAYED
            return TransferReused("this transfer id already stands for another movement")
        refusal = self._refusal(posting)
        if refusal is not None:
            return refusal
        for movement in posting.movements:
            self._balances[movement.debit_id] -= movement.amount
            self._balances[movement.credit_id] += movement.amount
        for hold_id, draw in posting.draws.items():
            self._remaining[hold_id] = _less(self._remaining[hold_id], draw)
        for guard in posting.guards:
            self._in_use[guard.key] += guard.amount
        self._standing.update(ours)
        self._accepted.append(posting)
        return Done.POSTED

    def _refusal(self, posting: Posting) -> QuotaError | None:
        return self._short(posting) or self._overdrawn(posting) or self._above_a_ceiling(posting)

    def _short(self, posting: Posting) -> QuotaError | None:
        needed: dict[str, int] = {}
        for movement in posting.movements:
            needed[movement.debit_id] = needed.get(movement.debit_id, 0) + movement.amount
        for debit_id, amount in needed.items():
            kind = self._kinds[debit_id]
            if kind not in BELOW_ZERO_KINDS and self._balances[debit_id] < amount:
                return _short(kind, debit_id)(f"{kind} has {self._balances[debit_id]} of {amount} credits")
        return None

    def _overdrawn(self, posting: Posting) -> QuotaError | None:
        for hold_id, draw in posting.draws.items():
            left = self._remaining.get(hold_id, Draw(0))
            if left.amount < draw.amount or left.contract_amount < draw.contract_amount:
                return HoldTooSmall(f"the hold has {left} left, {draw} were to be drawn")
        return None

    def _above_a_ceiling(self, posting: Posting) -> QuotaError | None:
        for guard in posting.guards:
            if guard.key not in self._in_use:
                self._in_use[guard.key] = self._connection.execute(guard.in_use).scalar_one()
            if self._in_use[guard.key] + guard.amount > guard.ceiling:
                return guard.refusal(self._in_use[guard.key])
        return None

    def write(self, at: datetime) -> None:
        """Write all that stands: transfers, holds, the callers' rows, each balance once, the head once."""
        if not self._accepted:
            return
        insert_rows(self._connection, _transfers, self._links(at))
        insert_rows(self._connection, _holds, [hold for posting in self._accepted for hold in posting.holds])
        for table, rows in _by_table(self._accepted).items():
            insert_rows(self._connection, table, rows)
        changed = {id_: value for id_, value in sorted(self._balances.items()) if value != self._before[id_]}
        update_column(self._connection, _accounts.c.balance, changed)
        drawn = sorted({id_ for posting in self._accepted for id_ in posting.draws})
        update_column(self._connection, _holds.c.remaining, {id_: self._remaining[id_].amount for id_ in drawn})
        sides = {id_: self._remaining[id_].contract_amount for id_ in drawn if id_ in self._two_sided}
        update_column(self._connection, _holds.c.contract_remaining, sides)
        top_ups = [pair for posting in self._accepted for pair in posting.top_ups.items()]
        if top_ups:
            rows = [{"key": id_, "more": more.amount, "contract_more": more.contract_amount} for id_, more in top_ups]
            self._connection.execute(_top_up, rows)
        self._connection.execute(_set_head, {"new_sequence": self._sequence, "new_hash": self._hash})

    def _links(self, at: datetime) -> list[dict[str, Any]]:
        links = []
        for movement in (m for posting in self._accepted for m in posting.movements):
            self._sequence += 1
            self._hash = link_hash(self._hash, self._sequence, movement, at)
            links.append(
                {
                    "sequence": self._sequence,
                    "id": movement.id,
                    "kind": movement.kind,
                    "debit_id": movement.debit_id,
                    "credit_id": movement.credit_id,
                    "amount": movement.amount,
                    "reference_id": movement.reference_id,
                    "details": movement.details,
                    "at": at,
                    "hash": self._hash,
                }
            )
        return links


def _short(kind: str, debit_id: str) -> type[QuotaError]:
    if debit_id.startswith("available:ctr-"):
        return ContractTooSmall
    return _SHORT.get(kind, QuotaError)


def _less(left: Draw, draw: Draw) -> Draw:
    return Draw(left.amount - draw.amount, left.contract_amount - draw.contract_amount)


def _by_table(postings: Iterable[Posting]) -> dict[Table, list[Mapping[str, Any]]]:
    tables: dict[Table, list[Mapping[str, Any]]] = {}
    for table, row in (pair for posting in postings for pair in posting.rows):
        tables.setdefault(table, []).append(row)
    return tables
