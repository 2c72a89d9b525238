"""Writes long books quickly: jobs that are held, charged and released, with true hashes, straight into PostgreSQL."""

from collections import deque
from collections.abc import Iterator
from hashlib import sha256

import psycopg
from region import fill_region

from quotas.holds import CONTRACT
from storage.database import Database
from storage.tables import microseconds, utcnow

AWARDS = 200
OPEN_AT_ONCE = 1000
"""Jobs whose hold still stands while others come."""
HELD, CHARGED = 3_600_000, 1_234_567


def write_books(database: Database, connection: psycopg.Connection, transfers: int) -> None:
    """Fill a migrated, empty database with so many transfers, their balances, holds and awards."""
    award_ids, contract_id = fill_region(database, AWARDS)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger_transfer DROP CONSTRAINT uq_ledger_transfer_id CASCADE")
        cursor.execute("DROP INDEX ix_ledger_transfer_reference_id")
        head = cursor.execute("SELECT sequence, hash FROM ledger_head").fetchone()
        assert head is not None
        balances = dict(cursor.execute("SELECT id, balance FROM ledger_account").fetchall())
        books = _Books(award_ids, contract_id, balances, *head)
        columns = "hash, sequence, id, kind, debit_id, credit_id, amount, reference_id, at, details"
        with cursor.copy(f"COPY ledger_transfer ({columns}) FROM STDIN") as copy:
            for block in books.blocks(transfers):
                copy.write(block)
        cursor.execute("UPDATE ledger_head SET sequence = %s, hash = %s", (transfers, books.hash))
        cursor.executemany(
            "UPDATE ledger_account SET balance = %s WHERE id = %s", [(left, id_) for id_, left in balances.items()]
        )
        columns = "id, award_id, amount, remaining, weight_thousandths, contract_id, contract_amount, "
        columns += "contract_remaining, contract_weight_thousandths"
        with cursor.copy(f"COPY hold ({columns}) FROM STDIN") as copy:
            for number in range(books.jobs):
                award, contract = books.left.get(number, (0, 0))
                copy.write_row(
                    (_job(number), books.award(number), HELD, award, 1000, contract_id, HELD, contract, 1000)
                )
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")


def _job(number: int) -> str:
    return f"job-{number:016}"


class _Books:
    """The chain as it grows, and what its balances come to."""

    def __init__(
        self, award_ids: list[str], contract_id: str, balances: dict[str, int], sequence: int, hash_: str
    ) -> None:
        self._award_ids = award_ids
        self._contract_id = contract_id
        self._balances = balances
        self._sequence = sequence
        self._at = microseconds(utcnow())
        self.hash = hash_
        self.jobs = 0
        self.left: dict[int, list[int]] = {}
        """What is left of each hold that still stands: of the award's side, of the contract's."""

    def award(self, number: int) -> str:
        return self._award_ids[number % AWARDS]

    def blocks(self, transfers: int, lines: int = 10_000) -> Iterator[bytes]:
        """Yield what COPY reads, some lines at a time, until the chain has so many transfers."""
        block: list[str] = []
        for sequence, movement in zip(range(self._sequence + 1, transfers + 1), self._movements(), strict=False):
            kind, id_, debit_id, credit_id, amount, job, details = movement
            body = f"{sequence}|{kind}/{id_}|{kind}|{debit_id}|{credit_id}|{amount}|{job}|{self._at + sequence}"
            body += f"|{details}" if details else ""
            self.hash = sha256(f"{self.hash}|{body}".encode()).hexdigest()
            self._balances[debit_id] -= amount
            self._balances[credit_id] += amount
            text = f"{self.hash}|{body}".replace("|", "\t")
            block.append(text + ("\n" if details else "\t\\N\n"))
            if len(block) == lines:
                yield "".join(block).encode()
                block.clear()
        yield "".join(block).encode()

    def _movements(self) -> Iterator[tuple[str, str, str, str, int, str, str]]:
        waiting: deque[int] = deque()
        while True:
            number, self.jobs = self.jobs, self.jobs + 1
            self.left[number] = [0, 0]
            waiting.append(number)
            yield from self._legs("hold", number, "available", "held", HELD)
            if len(waiting) > OPEN_AT_ONCE:
                done = waiting.popleft()
                yield from self._legs("settle", done, "held", "consumed", CHARGED)
                yield from self._legs("release", done, "held", "available", HELD - CHARGED)
                del self.left[done]

    def _legs(
        self, kind: str, number: int, source: str, target: str, amount: int
    ) -> Iterator[tuple[str, str, str, str, int, str, str]]:
        job = _job(number)
        id_ = f"{job}/1" if kind == "settle" else job
        details = "region=700;company=300;partner=0;value=2400123;tariff=7000000" if kind == "settle" else ""
        for side, owner in enumerate((self.award(number), self._contract_id)):
            prefix = CONTRACT if side else ""
            self.left[number][side] += amount if kind == "hold" else -amount
            said = "" if side else details
            yield f"{prefix}{kind}", id_, f"{source}:{owner}", f"{target}:{owner}", amount, job, said
