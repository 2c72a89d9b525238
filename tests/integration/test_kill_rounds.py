"""A worker is killed and PostgreSQL crashes at random moments: the books are right after each."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from clusters import churn
from clusters.postgres import PostgresServer, PostgresUnavailable
from sqlmodel import func, select
from world import world

from accounting.models import UsageRecord
from broker.schema_version import migrate_to
from quotas.invariants import broken
from quotas.models import ChainHead
from storage.database import Database

pytestmark = [pytest.mark.postgres, pytest.mark.torture, pytest.mark.slow, pytest.mark.timeout(3600)]
WORK = "SELECT (SELECT sequence FROM ledger_head), (SELECT count(*) FROM usage_record)"
ROUNDS = int(os.environ.get("IDF_TORTURE_ROUNDS", "10"))


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server of this test's own, since it is crashed."""
    try:
        server = PostgresServer.start()
    except PostgresUnavailable as reason:
        pytest.skip(str(reason))
    yield server
    server.stop()


def test_the_books_are_right_whatever_is_killed_and_whenever(own_server: PostgresServer, tmp_path: Path) -> None:
    url = own_server.url
    migrate_to(url)
    with world(url, tmp_path) as region:
        region.post("marc", "/awards", big_award())
        token = region.tokens["ines"]
    chance = random.Random(4)
    before = books(url)
    for number in range(ROUNDS):
        killed = one_round(own_server, tmp_path, token, chance, before, charges=bool(number % 2))
        after = books(url)
        assert after.faults == [], f"round {number}: {killed} was killed"
        assert after.head > before.head, "each round moved money"
        before = after
    assert before.charged >= ROUNDS // 2, "jobs ran and were charged"


class Books(NamedTuple):
    head: int
    charged: int
    faults: list[str]


def books(url: str) -> Books:
    database = Database(url)
    with database.read() as session:
        charged = session.exec(select(func.count()).select_from(UsageRecord)).one()
        found = Books(session.exec(select(ChainHead.sequence)).first() or 0, charged, list(broken(session)))
    database.close()
    return found


def big_award() -> dict[str, object]:
    days = {"start_on": "2026-01-01", "end_on": "2099-12-31"}
    return {"project": "vision", "amount_credits": 9_000 * 3_600_000, **days}


def one_round(
    server: PostgresServer, folder: Path, token: str, chance: random.Random, before: Books, *, charges: bool
) -> str:
    """Let a broker work until it moved money, or charged some, then kill it or its database, or both; say what."""
    command = [sys.executable, churn.__file__, server.url, str(folder), token]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        await_work(server.url, before, charges=charges)
        time.sleep(chance.uniform(0, 1))
        killed = chance.choice(("the worker", "the database", "the database under a worker that goes on"))
        if killed == "the worker":
            process.kill()
        else:
            server.crash()
            if killed == "the database":
                process.kill()
            server.resume()
            time.sleep(chance.uniform(0, 0.5))
    finally:
        process.kill()
        process.wait()
    return killed


def await_work(url: str, before: Books, *, charges: bool) -> None:
    """Wait until money moved, of a machine of whatever speed; a broker that never works fails the test."""
    deadline = time.monotonic() + 120
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        while time.monotonic() < deadline:
            head, charged = connection.execute(WORK).fetchone() or (0, 0)
            if head > before.head and (charged > before.charged or not charges):
                return
            time.sleep(0.01)
    raise AssertionError("the broker did not work within 120 s")
