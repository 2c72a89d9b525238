"""Programmes that release 0001 opened: what becomes of them on the way up, down, and up again."""

from datetime import date
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from broker.schema_version import migrate_to
from quotas.amounts import day_start, period
from quotas.invariants import broken
from quotas.ledger import GENESIS, Movement, link_hash
from quotas.models import Programme
from quotas.policy import ProgrammePolicy
from quotas.programmes import (
    BEGINNING,
    Shares,
    add_budget,
    budgets_of,
    change_policy,
    grant_award,
    open_programme,
    policy_of,
    policy_version,
    shares_at,
    unawarded_credits,
)
from storage.database import Database
from storage.tables import from_microseconds, microseconds, utcnow

HOUR = 3_600_000
OLD = "prg-00000000000001"
OPENED_US = 1_767_225_600_000_000


@pytest.fixture
def url(empty_url: str) -> str:
    """A database of release 0001 with one programme of 1000 h and no award."""
    migrate_to(empty_url, "0001")
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    engine.dispose()
    return empty_url


def fill(connection: Connection) -> None:
    funded = Movement(f"fund/{OLD}", "fund", "treasury:region", f"programme:{OLD}", 1000 * HOUR, OLD)
    row: dict[str, Any] = {
        "id": OLD, "account": f"programme:{OLD}", "at": OPENED_US, "amount": 1000 * HOUR, "fund": funded.id,
        "hash": link_hash(GENESIS, 1, funded, from_microseconds(OPENED_US)),
    }  # fmt: skip
    for statement in (
        "INSERT INTO programme (id, name, kind, default_time_limit_s, created_at) "
        "VALUES (:id, 'pack-ia-2026', 'pack-ia', 1800, :at)",
        "INSERT INTO ledger_account (id, kind, owner_id, unit, balance) "
        "VALUES (:account, 'programme', :id, 'credit', :amount)",
        "INSERT INTO ledger_transfer (sequence, id, kind, debit_id, credit_id, amount, reference_id, at, hash) "
        "VALUES (1, :fund, 'fund', 'treasury:region', :account, :amount, :id, :at, :hash)",
        "UPDATE ledger_account SET balance = -:amount WHERE id = 'treasury:region'",
        "UPDATE ledger_head SET sequence = 1, hash = :hash",
    ):
        names = {name: value for name, value in row.items() if f":{name}" in statement}
        connection.execute(text(statement), names)


def test_it_keeps_its_money_and_gets_no_bound_that_it_had_not(url: str) -> None:
    migrate_to(url)
    database = Database(url)
    with database.write() as session:
        programme = session.get_one(Programme, OLD)
        assert policy_of(programme) == ProgrammePolicy(
            kind="pack-ia", default_time_limit_s=1800, natures=["none", "personal", "health"]
        )
        [budget] = budgets_of(session, OLD)
        assert (budget.id, budget.budget_credits, unawarded_credits(session, OLD)) == (OLD, 1000 * HOUR, 1000 * HOUR)
        assert (budget.start_at, budget.end_at) == (BEGINNING, day_start(date(9001, 1, 1)))
        assert microseconds(programme.created_at) == OPENED_US
        assert shares_at(session.connection(), OLD, BEGINNING) == Shares(1000, 0, 0)
        start_at, end_at = period(date(2030, 1, 1), date(2030, 6, 30))
        grant_award(
            session, project_id="prj-1", programme=programme, amount_credits=HOUR, start_at=start_at, end_at=end_at
        )
        assert unawarded_credits(session, OLD) == 999 * HOUR
        assert list(broken(session)) == []
    database.close()


def test_down_and_up_again_loses_nothing(url: str) -> None:
    migrate_to(url)
    database = Database(url)
    with database.write() as session:
        policy = ProgrammePolicy(kind="challenge", default_time_limit_s=7200, longest_months=6)
        change_policy(session, session.get_one(Programme, OLD), policy, entered_by="psn-1")
        new = open_programme(session, name="new", policy=policy, shares=[(utcnow(), 500, 500, 0)])
        add_budget(session, new, *period(date(2027, 1, 1), date(2027, 12, 31)), 7 * HOUR)
        new_id = new.id
    before = everything(url)
    assert migrate_to(url, "0001") == "revision 0001"
    with database.read() as session:
        limits = session.execute(text("SELECT id, kind, default_time_limit_s FROM programme")).all()
        assert {tuple(row) for row in limits} == {(OLD, "challenge", 7200), (new_id, "challenge", 7200)}
        account = text("SELECT balance FROM ledger_account WHERE id = :id")
        assert session.execute(account, {"id": f"programme:{new_id}"}).scalar_one() == 0, "release 0001 looks for it"
    migrate_to(url)
    assert everything(url) == before
    with database.read() as session:
        programme = session.get_one(Programme, new_id)
        assert (policy_of(programme).longest_months, policy_version(session, OLD)) == (6, 2)
        assert [budget.budget_credits for budget in budgets_of(session, new_id)] == [7 * HOUR]
        assert list(broken(session)) == []
    database.close()


def everything(url: str) -> dict[str, list[str]]:
    database = Database(url)
    tables = ("programme", "programme_policy", "programme_budget", "funding_share", "ledger_transfer")
    with database.read() as session:
        kept = {
            name: sorted(str(sorted(row._mapping.items())) for row in session.execute(text(f"SELECT * FROM {name}")))
            for name in tables
        }
    database.close()
    return kept
