"""Writes long books quickly: jobs that are held, charged and released, with true hashes, straight into PostgreSQL."""

from collections import deque
from collections.abc import Iterator
from hashlib import sha256

import psycopg

from quotas.ledger import GENESIS

AWARDS = 200
OPEN_AT_ONCE = 1000
"""Jobs whose hold still stands while others come."""
HELD, CHARGED = 3_600_000, 1_234_567
BUDGET = 10**15
AT = 1_790_000_000_000_000
"""The first transfer's microseconds since 1970."""


def write_books(connection: psycopg.Connection, transfers: int) -> None:
    """Fill a migrated, empty database with so many transfers, their balances, holds and awards."""
    books = _Books()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger_transfer DROP CONSTRAINT uq_ledger_transfer_id CASCADE")
        cursor.execute("ALTER TABLE ledger_transfer DROP CONSTRAINT fk_ledger_transfer_debit_id")
        cursor.execute("ALTER TABLE ledger_transfer DROP CONSTRAINT fk_ledger_transfer_credit_id")
        cursor.execute("DROP INDEX ix_ledger_transfer_reference_id")
        columns = "hash, sequence, id, kind, debit_id, credit_id, amount, reference_id, at, details"
        with cursor.copy(f"COPY ledger_transfer ({columns}) FROM STDIN") as copy:
            for block in books.blocks(transfers):
                copy.write(block)
        cursor.execute("UPDATE ledger_head SET sequence = %s, hash = %s", (transfers, books.hash))
        cursor.execute(
            "INSERT INTO programme (id, name, kind, default_time_limit_s, created_at) "
            "VALUES ('prg-bench', 'bench', 'other', 3600, %s)",
            (AT,),
        )
        cursor.executemany(
            "INSERT INTO award (id, project_id, programme_id, awarded_credits, start_at, end_at, created_at) "
            "VALUES (%s, 'prj-bench', 'prg-bench', %s, %s, %s, %s)",
            [(award(number), BUDGET, AT, AT + 1, AT) for number in range(AWARDS)],
        )
        cursor.execute("DELETE FROM ledger_account")
        with cursor.copy("COPY ledger_account (id, kind, owner_id, unit, balance) FROM STDIN") as copy:
            for id_, balance in books.balances.items():
                copy.write_row((id_, *id_.split(":"), "credit", balance))
        with cursor.copy("COPY hold (id, award_id, amount, remaining, weight_thousandths) FROM STDIN") as copy:
            for number in range(books.jobs):
                copy.write_row((job(number), award(number), HELD, books.remaining.get(number, 0), 1000))
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")


def award(number: int) -> str:
    return f"awd-{number % AWARDS:016}"


def job(number: int) -> str:
    return f"job-{number:016}"


class _Books:
    """The chain as it grows, and what its balances come to."""

    def __init__(self) -> None:
        self.hash = GENESIS
        self.balances: dict[str, int] = {}
        self.jobs = 0
        self.remaining: dict[int, int] = {}

    def blocks(self, transfers: int, lines: int = 10_000) -> Iterator[bytes]:
        """Yield what COPY reads, some lines at a time."""
        block: list[str] = []
        for sequence, movement in zip(range(1, transfers + 1), self._movements(), strict=False):
            *columns, debit_id, credit_id, amount, reference_id, details = movement
            body = "|".join((str(sequence), *columns, debit_id, credit_id, str(amount), reference_id))
            body += f"|{AT + sequence}" + (f"|{details}" if details else "")
            self.hash = sha256(f"{self.hash}|{body}".encode()).hexdigest()
            self.balances[debit_id] = self.balances.get(debit_id, 0) - amount
            self.balances[credit_id] = self.balances.get(credit_id, 0) + amount
            text = f"{self.hash}|{body}".replace("|", "\t")
            block.append(text + ("\n" if details else "\t\\N\n"))
            if len(block) == lines:
                yield "".join(block).encode()
                block.clear()
        yield "".join(block).encode()

    def _movements(self) -> Iterator[tuple[str, str, str, str, int, str, str]]:
        yield "fund/prg-bench", "fund", "treasury:region", "programme:prg-bench", AWARDS * BUDGET, "prg-bench", ""
        for number in range(AWARDS):
            id_ = award(number)
            yield f"award/{id_}", "award", "programme:prg-bench", f"available:{id_}", BUDGET, id_, ""
        waiting: deque[int] = deque()
        while True:
            number, self.jobs = self.jobs, self.jobs + 1
            self.remaining[number] = HELD
            waiting.append(number)
            yield self._leg("hold", number, "available", "held", HELD)
            if len(waiting) > OPEN_AT_ONCE:
                done = waiting.popleft()
                self.remaining[done] -= CHARGED
                yield self._leg("settle", done, "held", "consumed", CHARGED)
                del self.remaining[done]
                yield self._leg("release", done, "held", "available", HELD - CHARGED)

    def _leg(self, kind: str, number: int, source: str, target: str, amount: int) -> tuple[str, ...]:
        id_, owner = job(number), award(number)
        details = "region=700;company=300;partner=0;value=2400123;tariff=7000000" if kind == "settle" else ""
        reference = f"{id_}/1" if kind == "settle" else id_
        return f"{kind}/{reference}", kind, f"{source}:{owner}", f"{target}:{owner}", amount, id_, details  # type: ignore[return-value]
