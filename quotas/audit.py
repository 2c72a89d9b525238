"""Derives everything again from the transfers alone: the whole chain, every balance, every hold, every award.

Each row's canonical bytes are its columns joined by the database itself, so there is no second copy of them
that could differ from what everybody reads (docs/decisions/0007). One pass, in constant memory but for one
figure per account: holds are compared by keyed sums, and looked at one by one only where the sums differ.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from operator import itemgetter
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGconn
from sqlalchemy import Connection, text
from sqlmodel import Session

from quotas.ledger import GENESIS
from quotas.models import BELOW_ZERO_KINDS
from quotas.programme_faults import broken_programmes
from storage.database import DatabaseUnavailable

BLOCK = 5000
"""Rows that are worked on together."""
FAULTS_MAX = 20
"""Holds that are named one by one, at most."""

HOLD_LEGS = (("award_id", "amount", "remaining"), ("contract_id", "contract_amount", "contract_remaining"))
"""Columns of `hold`, for each leg: whose `held` account, what was set aside, what is left of it."""
OWNERS = (("award", "awarded_credits"), ("contract", "capacity_credits"))
"""Tables whose rows own four accounts, and the column that says with how many credits they began."""

PATHS: dict[str, frozenset[tuple[str, str]]] = {
    "fund": frozenset({("treasury", "programme")}),
    "award": frozenset({("programme", "available")}),
    "supplement": frozenset({("programme", "available")}),
    "transfer": frozenset({("available", "available")}),
    "reclaim": frozenset({("available", "programme")}),
    "expire": frozenset({("available", "programme")}),
    "hold": frozenset({("available", "held")}),
    "settle": frozenset({("held", "consumed")}),
    "overrun": frozenset({("overrun", "consumed")}),
    "release": frozenset({("held", "available")}),
    # The third way takes a refund back that a lower charge made too large (quotas/corrections.py).
    "refund": frozenset({("consumed", "available"), ("consumed", "overrun"), ("overrun", "consumed")}),
    "adjust": frozenset(
        {("available", "consumed"), ("consumed", "available"), ("overrun", "consumed"), ("consumed", "overrun")}
    ),
    "contract": frozenset({("treasury", "available")}),
    "contract-return": frozenset({("available", "treasury")}),
    "restore": frozenset({("treasury", "treasury")}),
}
"""Every way that credits may take, as in docs/architecture.md: kind of transfer → kinds of the two accounts."""
ONE_OWNER = ("hold", "settle", "overrun", "release", "refund", "adjust")
"""Kinds that stay within one owner's accounts; a contract's side has them too, behind `contract-`."""
_WAYS = frozenset(
    (kind.encode(), debit.encode(), credit.encode(), kind.removeprefix("contract-") in ONE_OWNER)
    for kind, ways in (PATHS | {f"contract-{kind}": PATHS[kind] for kind in ONE_OWNER}).items()
    for debit, credit in ways
)

_LINE = (
    "coalesce(hash || '|' || sequence || '|' || id || '|' || kind || '|' || debit_id || '|' || credit_id"
    " || '|' || amount || '|' || reference_id || '|' || at || coalesce('|' || details, ''), '')"
)
_ACCOUNTS = "SELECT id || '|' || kind || '|' || owner_id || '|' || balance FROM ledger_account ORDER BY id"
_BELOW_ZERO = tuple(f"{kind}:".encode() for kind in BELOW_ZERO_KINDS)

Fault = tuple[int, str]
"""Where in its block the transfer stands that a sentence is about, and the sentence."""


@dataclass(frozen=True, slots=True)
class Link:
    """A transfer's place in the chain."""

    sequence: int
    hash: str


BEGINNING = Link(0, GENESIS)


class Audit:
    """One audit. `faults` does the work; the counts are right once it has ended."""

    def __init__(
        self, connection: Connection, *, since: Link = BEGINNING, tell: Callable[[int], None] = lambda _: None
    ) -> None:
        """Prepare an audit of what a connection sees, which must be one state of the database.

        `since` is a link that something outside proves: only the rows after it are read then, and no balance can
        be derived. `tell` hears how many rows were read, now and then.
        """
        self._connection = connection
        self._since = since
        self._tell = tell
        self._sequence, self._hash = since.sequence, since.hash.encode()
        self._derived: defaultdict[bytes, int] = defaultdict(int)
        self._told: set[bytes] = set()
        self._set_aside = self._drawn = 0
        self._rows_stand = True
        self.transfers = self.accounts = 0

    @property
    def last(self) -> Link:
        """The last row that was read."""
        return Link(self._sequence, self._hash.decode())

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each rule that does not hold, the first broken row first."""
        if self._since != BEGINNING:
            yield from faults_of_link(self._connection, self._since)
        yield from self._rows()
        yield from self._head()
        if self._since == BEGINNING:
            yield from self._balances()
            yield from self._holds()
            yield from self._owners()
            yield from broken_programmes(Session(self._connection))

    def _rows(self) -> Iterator[str]:
        lines = transfer_lines(self._connection, self._since.sequence)
        while block := list(islice(lines, BLOCK)):
            faults = [*_broken_links(self._hash, block), *self._moves(block)]
            yield from (sentence for _, sentence in sorted(faults, key=itemgetter(0)))
            self._rows_stand = self._rows_stand and not faults
            self._hash = block[-1][:64]
            self.transfers += len(block)
            self._tell(self.transfers)

    def _moves(self, block: list[bytes]) -> Iterator[Fault]:
        """Move the balances as each row of a block says."""
        derived, expected = self._derived, self._sequence
        for index, line in enumerate(block):
            fields = line.split(b"|")
            expected += 1
            try:
                sequence, debit, credit, amount = int(fields[1]), fields[4], fields[5], int(fields[6])
            except (ValueError, IndexError):
                yield index, f"{_name(line)}: its columns do not read as a transfer's"
                continue
            if sequence != expected:
                yield index, _missing(expected, sequence - 1)
                expected = sequence
            debit_kind, _, debit_owner = debit.partition(b":")
            credit_kind, _, credit_owner = credit.partition(b":")
            if (fields[3], debit_kind, credit_kind, debit_owner == credit_owner) not in _WAYS:
                yield index, f"{_name(line)}: no {_shown(fields[3])} goes from {_shown(debit)} to {_shown(credit)}"
            derived[credit] += amount
            derived[debit] = left = derived[debit] - amount
            if left < 0 and not debit.startswith(_BELOW_ZERO):
                yield from self._overdrawn(index, line, debit, left)
            if credit.startswith(b"held:"):
                self._set_aside += hash(credit + b" " + fields[7]) * amount
            if debit.startswith(b"held:"):
                self._drawn += hash(debit + b" " + fields[7]) * amount
        self._sequence = expected

    def _overdrawn(self, index: int, line: bytes, account: bytes, left: int) -> Iterator[Fault]:
        """Name an account the first time that it goes below zero; without the rows before, nobody can know."""
        if self._since == BEGINNING and account not in self._told:
            self._told.add(account)
            yield index, f"{_name(line)}: it takes account {_shown(account)} below zero, to {left}"

    def _head(self) -> Iterator[str]:
        head = self._connection.execute(text("SELECT sequence, hash FROM ledger_head")).one_or_none()
        if head is None:
            yield "the chain's head is missing"
        elif Link(head.sequence, head.hash) != self.last:
            short = _shown(head.hash[:16])
            yield f"the head names transfer {head.sequence}, {short}…: the last row is {self._sequence}"

    def _balances(self) -> Iterator[str]:
        left = dict(self._derived)
        for id_, kind, owner_id, balance in _fields(self._connection, _ACCOUNTS):
            self.accounts += 1
            derived = left.pop(id_, 0)
            name = _shown(id_)
            if id_ != kind + b":" + owner_id:
                yield f"account {name}: it says that it is of kind {_shown(kind)} and of {_shown(owner_id)}"
            if int(balance) != derived:
                yield f"account {name}: balance {_shown(balance)}, its transfers say {derived}"
            if int(balance) < 0 and not id_.startswith(_BELOW_ZERO):
                yield f"account {name}: {_shown(balance)} is below zero"
        for id_ in sorted(left):
            yield f"account {_shown(id_)}: transfers name it, and there is no such account"

    def _holds(self) -> Iterator[str]:
        """Compare what holds say with what their transfers moved.

        Both sides are summed up, each figure times a keyed hash of its account and job that nobody outside this
        process can know: sums that agree by chance are as likely as guessing that hash, 1 in 2**61.
        """
        set_aside = drawn = 0
        for leg in HOLD_LEGS:
            for account, job, amount, remaining in _fields(self._connection, _hold_leg(*leg)):
                key = hash(account + b" " + job)
                set_aside += key * int(amount)
                drawn += key * (int(amount) - int(remaining))
        if (set_aside, drawn) == (self._set_aside, self._drawn):
            return
        if self._rows_stand:
            yield from self._holds_one_by_one()
        else:
            yield "holds: their sums are not what the transfers say, of which some are broken"

    def _holds_one_by_one(self) -> Iterator[str]:
        for row in self._connection.execute(text(_broken_holds()), {"most": FAULTS_MAX}):
            yield (
                f"hold {_shown(row.job)}: {row.row_set_aside} were set aside and {row.row_drawn} were drawn "
                f"on {_shown(row.account)}, its transfers say {row.set_aside} and {row.drawn}"
            )

    def _owners(self) -> Iterator[str]:
        """Compare what awards and contracts say they began with to the transfer that gave it."""
        for table, column in OWNERS:
            wanted = (
                f"SELECT o.id, o.{column} AS said, t.amount AS given FROM {table} o "
                f"LEFT JOIN ledger_transfer t ON t.id = '{table}/' || o.id AND t.credit_id = 'available:' || o.id "
                f"WHERE coalesce(o.{column}, -1) <> coalesce(t.amount, -1) ORDER BY o.id"
            )
            for row in self._connection.execute(text(wanted)):
                yield f"{table} {_shown(row.id)}: it says {row.said} credits, its transfer gave {row.given}"


def faults_of_link(connection: Connection, link: Link) -> Iterator[str]:
    """Yield a sentence where the chain does not have a link that something outside proves."""
    wanted = text("SELECT hash FROM ledger_transfer WHERE sequence = :sequence")
    found = connection.execute(wanted, {"sequence": link.sequence}).scalar_one_or_none()
    if found is None:
        yield f"transfer {link.sequence}: the row is missing, a checkpoint has its hash"
    elif found != link.hash:
        yield f"transfer {link.sequence}: its hash is not the one that was signed"


def transfer_lines(connection: Connection, after: int = 0) -> Iterator[bytes]:
    """Yield each transfer's hash and what it is the hash of, without the hash before it, in the chain's order."""
    return _lines(connection, f"SELECT {_LINE} FROM ledger_transfer WHERE sequence > {after} ORDER BY sequence")


def _broken_links(previous: bytes, block: list[bytes]) -> Iterator[Fault]:
    """Check that each row's hash follows from the row before it."""
    for index, line in enumerate(block):
        link = sha256(previous)
        link.update(line[64:])
        previous = line[:64]
        if link.hexdigest().encode() != previous:
            yield index, f"{_name(line)}: its hash does not follow from the row before it"


def _name(line: bytes) -> str:
    return f"transfer {_shown(b' '.join(line.split(b'|')[1:2]))}"


def _missing(first: int, last: int) -> str:
    if first == last:
        return f"transfer {first}: a row is missing"
    return f"transfer {first}: a row is missing, and all up to {last}"


def _shown(field: bytes | str) -> str:
    """Word a column that may hold anything by now; what would act on a terminal is made visible."""
    words = field if isinstance(field, str) else field.decode(errors="replace")
    return words if words.isprintable() else ascii(words)


def _hold_leg(owner: str, amount: str, remaining: str) -> str:
    columns = f"'held:' || {owner} || '|' || id || '|' || {amount} || '|' || {remaining}"
    return f"SELECT {columns} FROM hold WHERE {owner} IS NOT NULL"


def _broken_holds() -> str:
    """Word the question which holds are not what their transfers say: exact, and slow on long books."""
    moved = (
        "SELECT {side} AS account, reference_id AS job, {came} AS came, {went} AS went, 0 AS row_came, 0 AS row_went"
        " FROM ledger_transfer WHERE {side} LIKE 'held:%'"
    )
    said = "SELECT 'held:' || {0}, id, 0, 0, {1}, {1} - {2} FROM hold WHERE {0} IS NOT NULL"
    parts = [
        moved.format(side="credit_id", came="amount", went="0"),
        moved.format(side="debit_id", came="0", went="amount"),
        *(said.format(*leg) for leg in HOLD_LEGS),
    ]
    return (
        "SELECT account, job, SUM(came) AS set_aside, SUM(went) AS drawn,"
        " SUM(row_came) AS row_set_aside, SUM(row_went) AS row_drawn"
        f" FROM ({' UNION ALL '.join(parts)}) AS leg GROUP BY account, job"
        " HAVING SUM(came) <> SUM(row_came) OR SUM(went) <> SUM(row_went) ORDER BY job, account LIMIT :most"
    )


def _fields(connection: Connection, wanted: str) -> Iterator[list[bytes]]:
    return (line.split(b"|") for line in _lines(connection, wanted))


def _lines(connection: Connection, wanted: str) -> Iterator[bytes]:
    """Yield the one text column of a question, row by row: by COPY on PostgreSQL, through a cursor on SQLite."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return (line.encode() for (line,) in driver.execute(wanted))
    return _copied(driver.pgconn, f"COPY ({wanted}) TO STDOUT")


def _copied(server: PGconn, wanted: str) -> Iterator[bytes]:
    """Read what COPY sends, straight from libpq: through psycopg's own loop each row takes 1 µs more.

    Raises:
        DatabaseUnavailable: the server refused, or went away in the middle.
    """
    answer = server.exec_(wanted.encode())
    left = 1
    try:
        while left > 0:
            left, line = server.get_copy_data(0)
            if left > 0:
                yield bytes(line[:-1])
    except psycopg.OperationalError as error:
        left = 0
        raise DatabaseUnavailable(f"the database broke off: {error}") from error
    finally:
        if left > 0:
            _abandon(server)
    while (further := server.get_result()) is not None:
        answer = further
    if answer.status != pq.ExecStatus.COMMAND_OK:
        raise DatabaseUnavailable(f"the database broke off: {server.get_error_message()}")


def _abandon(server: PGconn) -> None:
    """Leave a COPY whose reader wants no more of it, so that the connection can be used again."""
    server.get_cancel().cancel()
    while server.get_copy_data(0)[0] > 0:
        pass
    while server.get_result() is not None:
        pass
