"""A worker is killed and PostgreSQL crashes at random moments: the books are right after each."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from clusters import churn
from clusters.postgres import PostgresServer, PostgresUnavailable
from sqlmodel import Session, func, select
from world import world

from accounting.models import UsageRecord
from broker.schema_version import migrate_to
from quotas.invariants import broken
from quotas.models import ChainHead
from storage.database import Database

pytestmark = [pytest.mark.postgres, pytest.mark.torture, pytest.mark.slow, pytest.mark.timeout(3600)]
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
    with looking(url) as session:
        before = Work.of(session)
    for number in range(ROUNDS):
        killed = one_round(own_server, tmp_path, token, chance, before, charges=bool(number % 2))
        with looking(url) as session:
            assert list(broken(session)) == [], f"round {number}: {killed} was killed"
            after = Work.of(session)
        assert after.head > before.head, "each round moved money"
        before = after
    assert before.charged >= ROUNDS // 2, "jobs ran and were charged"


class Work(NamedTuple):
    """What was done so far: movements of the ledger, and runs charged."""

    head: int
    charged: int

    @classmethod
    def of(cls, session: Session) -> "Work":
        charged = session.exec(select(func.count()).select_from(UsageRecord)).one()
        return cls(session.exec(select(ChainHead.sequence)).one(), charged)


@contextmanager
def looking(url: str) -> Iterator[Session]:
    database = Database(url)
    try:
        with database.read() as session:
            yield session
    finally:
        database.close()


def big_award() -> dict[str, object]:
    days = {"start_on": "2026-01-01", "end_on": "2099-12-31"}
    return {"project": "vision", "amount_credits": 9_000 * 3_600_000, **days}


def one_round(
    server: PostgresServer, folder: Path, token: str, chance: random.Random, before: Work, *, charges: bool
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


def await_work(url: str, before: Work, *, charges: bool) -> None:
    """Wait until money moved, of a machine of whatever speed; a broker that never works fails the test."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with looking(url) as session:
            now = Work.of(session)
        if now.head > before.head and (now.charged > before.charged or not charges):
            return
        time.sleep(0.05)
    raise AssertionError("the broker did not work within 120 s")
