"""Thirty-two clients at one award, 10,000 holds, on PostgreSQL: never overspent, none lost."""

import threading
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from clusters.postgres import PostgresServer
from sqlmodel import func, select
from world import HOUR, world

from quotas.errors import AwardTooSmall
from quotas.holds import Side, open_hold
from quotas.invariants import broken
from quotas.ledger import Done
from quotas.models import Contract, Hold
from quotas.writer import LedgerWriter
from storage.database import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]
CLIENTS = 32
HOLDS = 10_000
PAYABLE = 7_000


def test_never_overspent_and_none_lost(postgres: PostgresServer, postgres_template: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE storm TEMPLATE {postgres_template}")
    url = postgres.database_url("storm")
    with world(url, tmp_path) as region:
        award = region.award()
    size = award["available_credits"] // PAYABLE
    database = Database(url, pool_size=4)
    with database.read() as session:
        contract_id = session.exec(select(Contract.id)).one()
    writers = [LedgerWriter(database), LedgerWriter(database)]
    outcomes: list[str] = []

    def client(number: int) -> None:
        for turn in range(number, HOLDS, CLIENTS):
            award_side = Side(award["id"], size, 1000)
            outcome = writers[turn % 2].post(open_hold(f"job-{turn}", award_side, Side(contract_id, 1, 1000)))
            outcomes.append(outcome.value if isinstance(outcome, Done) else outcome.code)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    assert Counter(outcomes) == {"posted": PAYABLE, AwardTooSmall.code: HOLDS - PAYABLE}
    with database.read() as session:
        assert session.exec(select(func.count()).select_from(Hold)).one() == PAYABLE
        assert session.exec(select(func.sum(Hold.amount))).one() == PAYABLE * size <= 100 * HOUR
        assert list(broken(session)) == []
    database.close()
