"""The ledger: double entry in integer credits, one hash chain, and movements decided in groups.

A posting is decided as a whole or not at all. The chain's head is locked first, then accounts in the order
of their ids, so that two writers can never wait for each other and no balance is read before it is ours.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from hashlib import sha256
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table, bindparam, insert, select, update
from sqlmodel import Session

from quotas.errors import AwardTooSmall, HoldTooSmall, ProgrammeTooSmall, QuotaError, TransferReused
from quotas.models import BELOW_ZERO_KINDS, DETAILS_MAX, Account, ChainHead, Hold, Transfer
from storage.tables import microseconds

GENESIS = "0" * 64
TREASURY = "treasury:region"
_PAIR = r"[a-z][a-z0-9_]*=[!#-&(-:<-\[\]-{}~]+"  # any printable ASCII but the space and "';\|
_DETAILS = re.compile(f"{_PAIR}(;{_PAIR})*")

_accounts: Table = Account.__table__  # type: ignore[attr-defined]
_transfers: Table = Transfer.__table__  # type: ignore[attr-defined]
_holds: Table = Hold.__table__  # type: ignore[attr-defined]
_head: Table = ChainHead.__table__  # type: ignore[attr-defined]

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
class Posting:
    """Movements that stand or fall together, with the rows that are written only if they stand."""

    movements: tuple[Movement, ...]
    holds: tuple[Mapping[str, Any], ...] = ()
    """New rows of `hold`."""
    draws: Mapping[str, int] = field(default_factory=dict)
    """Hold id → credits taken out of it."""
    rows: tuple[tuple[Table, Mapping[str, Any]], ...] = ()
    """Rows of the caller's own tables, written in this order."""


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
    row = {
        "id": account_id(kind, owner_id),
        "kind": kind,
        "owner_id": owner_id,
        "unit": "credit",
        "balance": 0,
    }
    session.execute(insert(_accounts), [row])


def open_ledger(session: Session) -> None:
    """Write the chain's head and the treasury, once in the life of a region."""
    session.execute(insert(_head), [{"id": 1, "sequence": 0, "hash": GENESIS}])
    open_account(session, "treasury", "region")


def lock_head(connection: Connection) -> tuple[int, str]:
    """Take the lock of every movement, before any other of the money's rows; return the head's sequence and hash."""
    row = connection.execute(select(_head.c.sequence, _head.c.hash).with_for_update()).one()
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
        self._remaining = self._remaining_of(chain.from_iterable(p.draws for p in postings))
        self._before = dict(self._balances)
        self._accepted: list[Posting] = []

    def _standing_transfers(self, ids: Sequence[str]) -> dict[str, tuple[str, str, int]]:
        columns = (_transfers.c.id, _transfers.c.debit_id, _transfers.c.credit_id, _transfers.c.amount)
        found: dict[str, tuple[str, str, int]] = {}
        for some in _chunks(ids):
            for row in self._connection.execute(select(*columns).where(_transfers.c.id.in_(some))):
                found[row.id] = (row.debit_id, row.credit_id, row.amount)
        return found

    def _lock_accounts(self, movements: Iterable[Movement]) -> tuple[dict[str, str], dict[str, int]]:
        ids = sorted({account for m in movements for account in (m.debit_id, m.credit_id)})
        columns = (_accounts.c.id, _accounts.c.kind, _accounts.c.balance)
        kinds: dict[str, str] = {}
        balances: dict[str, int] = {}
        for some in _chunks(ids):
            wanted = select(*columns).where(_accounts.c.id.in_(some)).order_by(_accounts.c.id).with_for_update()
            for row in self._connection.execute(wanted):
                kinds[row.id], balances[row.id] = row.kind, row.balance
        return kinds, balances

    def _remaining_of(self, hold_ids: Iterable[str]) -> dict[str, int]:
        remaining: dict[str, int] = {}
        for some in _chunks(sorted(set(hold_ids))):
            rows = self._connection.execute(select(_holds.c.id, _holds.c.remaining).where(_holds.c.id.in_(some)))
            remaining.update((row.id, row.remaining) for row in rows)
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
        for hold_id, amount in posting.draws.items():
            self._remaining[hold_id] -= amount
        self._standing.update(ours)
        self._accepted.append(posting)
        return Done.POSTED

    def _refusal(self, posting: Posting) -> QuotaError | None:
        needed: dict[str, int] = {}
        for movement in posting.movements:
            needed[movement.debit_id] = needed.get(movement.debit_id, 0) + movement.amount
        for debit_id, amount in needed.items():
            kind = self._kinds[debit_id]
            if kind not in BELOW_ZERO_KINDS and self._balances[debit_id] < amount:
                return _SHORT.get(kind, QuotaError)(f"{kind} has {self._balances[debit_id]} of {amount} credits")
        for hold_id, amount in posting.draws.items():
            if self._remaining.get(hold_id, 0) < amount:
                return HoldTooSmall(f"the hold has {self._remaining.get(hold_id, 0)} of {amount} credits left")
        return None

    def write(self, at: datetime) -> None:
        """Write all that stands: transfers, holds, the callers' rows, each balance once, the head once."""
        if not self._accepted:
            return
        self._insert(_transfers, self._links(at))
        self._insert(_holds, [hold for posting in self._accepted for hold in posting.holds])
        for table, rows in _by_table(self._accepted).items():
            self._insert(table, rows)
        self._update(
            update(_accounts).where(_accounts.c.id == bindparam("key")).values(balance=bindparam("value")),
            {id_: value for id_, value in sorted(self._balances.items()) if value != self._before[id_]},
        )
        drawn = {id_ for posting in self._accepted for id_ in posting.draws}
        self._update(
            update(_holds).where(_holds.c.id == bindparam("key")).values(remaining=bindparam("value")),
            {id_: self._remaining[id_] for id_ in sorted(drawn)},
        )
        self._connection.execute(update(_head).values(sequence=self._sequence, hash=self._hash))

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

    def _insert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._connection.execute(insert(table), rows)

    def _update(self, statement: Any, values: Mapping[str, int]) -> None:
        if values:
            self._connection.execute(statement, [{"key": k, "value": v} for k, v in values.items()])


def _by_table(postings: Iterable[Posting]) -> dict[Table, list[Mapping[str, Any]]]:
    tables: dict[Table, list[Mapping[str, Any]]] = {}
    for table, row in (pair for posting in postings for pair in posting.rows):
        tables.setdefault(table, []).append(row)
    return tables


def _chunks(ids: Sequence[str], size: int = 500) -> Iterable[Sequence[str]]:
    """Bound the number of parameters of one statement."""
    return (ids[start : start + size] for start in range(0, len(ids), size))
