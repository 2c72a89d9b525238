"""Holds on PostgreSQL at 32 clients, chain and contract included, against bare conditional UPDATEs.

Raw: each client has a connection of its own in autocommit (psycopg, `synchronous_commit=on`) and runs one
`UPDATE … SET balance = balance - 1 WHERE id = … AND balance >= 1` at a time: what any quota must do at least.
Ours: each client asks the ledger writer of the process for a hold and waits for its commit: two sides moved,
two transfers hashed into the chain, one hold row.
"""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
from clusters.postgres import PostgresServer
from harness import Figure, at_least, in_turn
from region import fill_region

from broker.schema_version import migrate_to
from quotas.holds import Side, open_hold
from quotas.ledger import Done
from quotas.writer import LedgerWriter
from storage.database import Database

CLIENTS = 32
HOLDS = 3200
"""Per round, over all clients."""
ROUNDS = 7


def measure() -> list[Figure]:
    server = PostgresServer.start()
    try:
        return [
            _figure(server, "one_award", 1, bar=1.0),
            _figure(server, "many_awards", 200, bar=0.5),
        ]
    finally:
        server.stop()


def _figure(server: PostgresServer, name: str, awards: int, bar: float) -> Figure:
    with psycopg.connect(_plain(server.url), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    url = server.database_url(name)
    migrate_to(url)
    database = Database(url)
    award_ids, contract_id = fill_region(database, awards)
    with psycopg.connect(_plain(url), autocommit=True) as admin:
        assert admin.execute("SHOW synchronous_commit").fetchone() == ("on",)
        admin.execute("CREATE TABLE bare (id text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0))")
        admin.execute("INSERT INTO bare SELECT 'row-' || n, 1000000000 FROM generate_series(1, %s) n", (awards,))
    writer = LedgerWriter(database)
    numbers = itertools.count()
    connections = [psycopg.connect(_plain(url), autocommit=True) for _ in range(CLIENTS)]

    def hold(client: int, turn: int) -> None:
        job = f"job-{next(numbers)}"
        award = Side(award_ids[(client * 7 + turn) % awards], 1000, 1000)
        assert writer.post(open_hold(job, award, Side(contract_id, 1000, 1000))) is Done.POSTED

    def bare(client: int, turn: int) -> None:
        row = f"row-{(client * 7 + turn) % awards + 1}"
        done = connections[client].execute(
            "UPDATE bare SET balance = balance - 1000 WHERE id = %s AND balance >= 1000", (row,)
        )
        assert done.rowcount == 1

    try:
        return at_least(name, "holds/s", *in_turn(ROUNDS, lambda: _round(hold), lambda: _round(bare)), bar=bar)
    finally:
        writer.close()
        database.close()
        for connection in connections:
            connection.close()


def _round(act: Callable[[int, int], None]) -> float:
    """Return how many a second all clients did together."""
    each = HOLDS // CLIENTS

    def client(number: int) -> None:
        for turn in range(each):
            act(number, turn)

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))  # raises what a client raised
    return HOLDS / (time.perf_counter() - began)


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")
