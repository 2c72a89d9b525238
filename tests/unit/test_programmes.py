"""Programmes on both engines: policy with its history, budgets by period, shares by date, awards out of a budget."""

from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from quotas.amounts import PARIS, day_start, period
from quotas.errors import BudgetOverlaps, NoBudget, ProgrammeTooSmall, SharesRefused
from quotas.invariants import broken
from quotas.models import Award, FundingShare, Programme, ProgrammePolicyVersion, Transfer
from quotas.policy import ProgrammePolicy
from quotas.programmes import (
    Shares,
    add_budget,
    add_shares,
    budget_for,
    budgets_of,
    change_policy,
    grant_award,
    open_programme,
    policy_of,
    policy_version,
    shares_at,
    shares_of,
    unawarded_credits,
)
from storage.database import Database
from storage.tables import utcnow

HOUR = 3_600_000
Y2027 = period(date(2027, 1, 1), date(2027, 12, 31))
Y2028 = period(date(2028, 1, 1), date(2028, 12, 31))


def opened(session: Session, **changes: object) -> Programme:
    budgets = [(*Y2027, 100 * HOUR), (*Y2028, 50 * HOUR)]
    fields = {"name": "pack-ia", "policy": ProgrammePolicy(kind="pack-ia"), "budgets": budgets, **changes}
    return open_programme(session, **fields)  # type: ignore[arg-type]


def granted(session: Session, programme: Programme, hours: int, start_on: date, days: int = 90) -> Award:
    start_at, end_at = period(start_on, start_on + timedelta(days=days))
    return grant_award(
        session,
        project_id="prj-1",
        programme=programme,
        amount_credits=hours * HOUR,
        start_at=start_at,
        end_at=end_at,
    )


def left(session: Session, programme: Programme) -> list[int]:
    return [unawarded_credits(session, budget.id) // HOUR for budget in budgets_of(session, programme.id)]


def test_each_period_has_its_budget(database: Database) -> None:
    with database.write() as session:
        programme = opened(session)
        granted(session, programme, 30, date(2027, 12, 31))
        granted(session, programme, 20, date(2028, 1, 1))
        assert left(session, programme) == [70, 30], "an award draws from the budget that holds its start"
    with database.read() as session:
        assert list(broken(session)) == []


def test_an_award_above_its_period_is_refused_though_another_has_more(database: Database) -> None:
    with database.write() as session:
        programme = opened(session)
        with pytest.raises(ProgrammeTooSmall, match="has 50 h left to award, 60 h were asked for") as refusal:
            granted(session, programme, 60, date(2028, 6, 1))
        assert refusal.value.remedy == "award at most 50 h"


def test_a_day_without_a_budget(database: Database) -> None:
    with database.write() as session:
        programme = opened(session)
        with pytest.raises(NoBudget) as refusal:
            granted(session, programme, 1, date(2029, 1, 1))
        assert refusal.value.detail == (
            "programme pack-ia has no budget for an award that begins on 2029-01-01: "
            "it has budgets from 2027-01-01 to 2027-12-31; 2028-01-01 to 2028-12-31"
        )
        assert refusal.value.remedy == (
            "begin it on another day, or fund that one: idf-compute programme fund pack-ia HOURS --from … --to …"
        )
        bare = opened(session, name="bare", budgets=[])
        with pytest.raises(NoBudget, match="that begins on 2027-01-01: it has none yet"):
            budget_for(session, bare.id, Y2027[0])


def test_a_further_budget_and_more_for_the_same_period(database: Database) -> None:
    with database.write() as session:
        programme = opened(session)
        year = period(date(2029, 1, 1), date(2029, 12, 31))
        further = add_budget(session, programme, *year, 5 * HOUR)
        assert add_budget(session, programme, *Y2027, 7 * HOUR).budget_credits == 107 * HOUR
        assert add_budget(session, programme, *Y2027, 1 * HOUR).budget_credits == 108 * HOUR
        assert left(session, programme) == [108, 50, 5]
        first = budgets_of(session, programme.id)[0].id
    with database.read() as session:
        ids = set(session.exec(select(Transfer.id)).all())
        assert {f"fund/{first}", f"fund/{first}/2", f"fund/{first}/3", f"fund/{further.id}"} <= ids
        assert list(broken(session)) == []


@pytest.mark.parametrize(
    ("start_on", "end_on"),
    [
        (date(2027, 12, 31), date(2027, 12, 31)),
        (date(2026, 1, 1), date(2027, 1, 1)),
        (date(2026, 1, 1), date(2030, 1, 1)),
    ],
)
def test_budgets_that_overlap_are_refused(database: Database, start_on: date, end_on: date) -> None:
    with database.write() as session:
        programme = opened(session)
        with pytest.raises(BudgetOverlaps) as refusal:
            add_budget(session, programme, *period(start_on, end_on), HOUR)
        assert refusal.value.detail == (
            "programme pack-ia has a budget from 2027-01-01 to 2027-12-31 already, and an award must draw from one only"
        )
        assert refusal.value.remedy == "choose days outside it, or the very same days to add to it"
        assert left(session, programme) == [100, 50]


def test_a_new_policy_is_in_force_and_the_old_one_kept(database: Database) -> None:
    with database.write() as session:
        programme = opened(session, entered_by="psn-1")
        assert policy_version(session, programme.id) == 1
        change_policy(session, programme, ProgrammePolicy(kind="challenge", longest_months=6), entered_by="psn-2")
        programme_id = programme.id
    with database.read() as session:
        found = session.get_one(Programme, programme_id)
        assert (found.kind, policy_of(found).longest_months, policy_version(session, programme_id)) == (
            "challenge", 6, 2,
        )  # fmt: skip
        kept = session.exec(select(ProgrammePolicyVersion).order_by("version")).all()
        assert [(row.version, row.policy["kind"], row.entered_by) for row in kept] == [
            (1, "pack-ia", "psn-1"),
            (2, "challenge", "psn-2"),
        ]


def share_at(session: Session, programme: Programme, day: date) -> Shares:
    return shares_at(session.connection(), programme.id, day_start(day))


def test_the_region_pays_all_until_somebody_says_otherwise(database: Database) -> None:
    with database.write() as session:
        programme = opened(session)
        assert share_at(session, programme, date(1970, 1, 1)) == Shares(1000, 0, 0)
        other = opened(session, name="b", budgets=[], shares=[(day_start(date(2027, 6, 1)), 500, 400, 100)])
        assert share_at(session, other, date(2027, 5, 31)) == Shares(1000, 0, 0)
        assert share_at(session, other, date(2027, 6, 1)) == Shares(500, 400, 100)
        third = opened(session, name="c", budgets=[], shares=[(day_start(date(1970, 1, 1)), 500, 500, 0)])
        assert share_at(session, third, date(1970, 1, 1)) == Shares(500, 500, 0)
        assert len(shares_of(session, third.id)) == 1


def tomorrow() -> datetime:
    return day_start(utcnow().astimezone(PARIS).date() + timedelta(days=1))


def test_shares_change_from_a_day_to_come(database: Database) -> None:
    with database.write() as session:
        programme = opened(session)
        add_shares(session, programme, (tomorrow(), 600, 300, 100), entered_by="psn-1")
        assert shares_at(session.connection(), programme.id, utcnow()) == Shares(1000, 0, 0)
        assert shares_at(session.connection(), programme.id, tomorrow()) == Shares(600, 300, 100)
        with pytest.raises(SharesRefused, match=r"has shares from \S+ already") as refusal:
            add_shares(session, programme, (tomorrow(), 1000, 0, 0), entered_by="psn-1")
        assert refusal.value.remedy == "choose another day"


def test_what_is_charged_already_keeps_its_shares(database: Database) -> None:
    with database.write() as session:
        programme = opened(session)
        today = day_start(utcnow().astimezone(PARIS).date())
        with pytest.raises(SharesRefused, match="is charged by the shares of that day") as refusal:
            add_shares(session, programme, (today, 500, 500, 0), entered_by="psn-1")
        assert refusal.value.remedy == f"begin on {tomorrow().astimezone(PARIS).date()} or later"


@pytest.mark.parametrize("shares", [(500, 400, 0), (1001, 0, 0), (1500, -500, 0), (0, 0, 0)])
def test_shares_that_make_no_whole(database: Database, shares: tuple[int, int, int]) -> None:
    with database.write() as session:
        programme = opened(session)
        with pytest.raises(SharesRefused) as refusal:
            add_shares(session, programme, (tomorrow(), *shares), entered_by=None)
        region, company, partner = shares
        assert refusal.value.detail == (
            f"the shares of Region ({region}), company ({company}) and partner ({partner}) "
            f"make {sum(shares)} thousandths"
        )
        assert refusal.value.remedy == "give three shares, none below 0, that make 1000"


@pytest.mark.parametrize("shares", [(500, 400, 0), (1500, -500, 0)])
def test_the_database_itself_refuses_them(database: Database, shares: tuple[int, int, int]) -> None:
    with database.write() as session:
        programme_id = opened(session).id
    names = ("region_thousandths", "company_thousandths", "partner_thousandths")
    row = FundingShare(programme_id=programme_id, valid_from=tomorrow(), **dict(zip(names, shares, strict=True)))
    with database.read() as session:
        session.add(row)
        with pytest.raises(IntegrityError):
            session.flush()


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE programme_budget SET budget_credits = budget_credits + 1", "its transfers give 360000000"),
        ("UPDATE ledger_transfer SET reference_id = 'x' WHERE kind = 'fund'", "its transfers give 0"),
        ("UPDATE ledger_transfer SET debit_id = 'treasury:contracts' WHERE kind = 'fund'", "from treasury:contracts"),
        ("UPDATE programme SET policy = (SELECT '{}' FROM ledger_head)", "is not the newest that was entered"),
        ("DELETE FROM programme_policy", "is not the newest that was entered"),
    ],
)
def test_tampering_is_found(database: Database, tampering: str, found: str) -> None:
    with database.write() as session:
        opened(session)
    if not database.is_sqlite:
        tampering = tampering.replace("'{}'", "'{}'::json")
    with database.write() as session:
        assert list(broken(session)) == []
        session.execute(text(tampering))
        session.expire_all()
        assert any(found in fault for fault in broken(session)), list(broken(session))
