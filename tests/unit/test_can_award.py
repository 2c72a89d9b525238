"""Can this still be awarded: policy, budgets, holds and contracts, on both engines, with the numbers behind it."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from served import Typist, served
from sqlmodel import Session
from world import World, world

from cli.units import paris_today
from quotas.amounts import period
from quotas.can_award import CanAward, Wanted, can_award
from quotas.contracts import open_contract
from quotas.ledger import Movement, Posting, account_id, post
from quotas.models import Contract, Programme
from quotas.policy import ProgrammePolicy
from quotas.programmes import grant_award, open_programme, set_weight
from storage.database import Database
from storage.tables import utcnow

HOUR = 3_600_000
FIRST, LAST = date(2027, 3, 1), date(2027, 8, 31)
YEAR = period(date(2027, 1, 1), date(2027, 12, 31))


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.write() as opened:
        set_weight(opened, "a100-80", 2000, YEAR[0])
        yield opened


def programme(session: Session, name: str = "pack-ia", hours: int = 1000, **policy: Any) -> Programme:
    budgets = [(*YEAR, hours * HOUR)]
    return open_programme(session, name=name, policy=ProgrammePolicy(**policy), budgets=budgets)


def contract(session: Session, hours: int, site: str = "sit-1", gpu_class: str = "a100-80") -> Contract:
    """A contract over `hours` normalised GPU-hours of 2027."""
    return open_contract(
        session,
        gpu_seconds=hours * 3600 // 2,
        weight_thousandths=2000,
        site_id=site,
        gpu_class=gpu_class,
        kind="purchased",
        order_number="BC-1",
        start_at=YEAR[0],
        end_at=YEAR[1],
    )


def award(session: Session, owner: Programme, hours: int, project_id: str = "prj-1", last: date = LAST) -> str:
    start_at, end_at = period(FIRST, last)
    return grant_award(
        session,
        project_id=project_id,
        programme=owner,
        amount_credits=hours * HOUR,
        start_at=start_at,
        end_at=end_at,
    ).id


def asked(session: Session, hours: int, **wanted: Any) -> CanAward:
    return can_award(session, Wanted(**{"credits": hours * HOUR, "start_on": FIRST, "end_on": LAST, **wanted}))


def move(session: Session, debit: str, credit: str, owner_id: str, hours: int) -> None:
    movement = Movement(
        f"x/{credit}/{owner_id}", "x", account_id(debit, owner_id), account_id(credit, owner_id), hours * HOUR, "job-1"
    )
    [outcome] = post(session.connection(), [Posting(movements=(movement,))], utcnow())
    assert outcome.name == "POSTED", outcome  # type: ignore[union-attr]


def test_yes_and_what_would_bind_first(session: Session) -> None:
    owner = programme(session, hours=1000)
    contract(session, 800)
    answer = asked(session, 500, programme=owner)
    assert (answer.refusals, answer.binds, answer.largest) == ([], "contracts", 800 * HOUR)
    contract(session, 300, site="sit-2")
    answer = asked(session, 500, programme=owner)
    assert (answer.refusals, answer.binds, answer.largest) == ([], "budget", 1000 * HOUR)


def test_the_budget_binds(session: Session) -> None:
    owner = programme(session, hours=1000)
    contract(session, 5000)
    award(session, owner, 700)
    answer = asked(session, 500, programme=owner)
    [refusal] = answer.refusals
    assert (answer.binds, answer.largest) == ("budget", 300 * HOUR)
    assert refusal.detail == (
        "programme pack-ia has 300 h left to award of its budget from 2027-01-01 to 2027-12-31, 500 h are asked for"
    )
    assert refusal.remedy == (
        "award at most 300 h, or add to that budget: "
        "idf-compute programme fund pack-ia 200h --from 2027-01-01 --to 2027-12-31"
    )


def test_a_budget_that_is_spent_says_only_how_to_add_to_it(session: Session) -> None:
    owner = programme(session, hours=10)
    contract(session, 5000)
    award(session, owner, 10)
    can = can_award(session, Wanted(credits=1, start_on=FIRST, end_on=LAST, programme=owner))
    assert [refusal.remedy for refusal in can.refusals] == [
        "add to that budget: idf-compute programme fund pack-ia 0.001h --from 2027-01-01 --to 2027-12-31"
    ], "rounded up, so that what is named is enough"


def test_no_budget_on_that_day(session: Session) -> None:
    owner = programme(session)
    contract(session, 5000)
    [refusal] = asked(session, 1, programme=owner, start_on=date(2026, 12, 31)).refusals
    assert (refusal.side, "has no budget for an award that begins on 2026-12-31" in refusal.detail) == ("budget", True)
    [refusal] = asked(session, 1, start_on=date(2026, 12, 31)).refusals
    assert refusal.detail == "no programme has a budget for an award that begins on 2026-12-31"
    assert refusal.remedy.startswith("begin it on another day, or fund one")


def test_without_a_programme_the_largest_budget_counts(session: Session) -> None:
    programme(session, "small", 100)
    programme(session, "large", 200)
    contract(session, 5000)
    answer = asked(session, 150)
    assert [(budget.programme, budget.left // HOUR) for budget in answer.budgets] == [("large", 200), ("small", 100)]
    assert answer.refusals == []
    [refusal] = asked(session, 250).refusals
    assert refusal.detail.startswith("no programme has more than large, which has 200 h left to award of its budget")


def test_what_others_may_still_draw_is_not_promised_twice(session: Session) -> None:
    owner = programme(session, hours=10_000)
    contract(session, 1000)
    own = award(session, owner, 700)
    award(session, owner, 100, "prj-2", last=date(2027, 3, 31))
    answer = asked(session, 500, programme=owner, start_on=date(2027, 4, 1))
    [refusal] = answer.refusals
    assert (answer.binds, answer.promised, answer.largest) == ("contracts", 700 * HOUR, 300 * HOUR)
    assert refusal.detail == (
        "the contracts that run from 2027-04-01 to 2027-08-31 have 1000 h left, other awards may still draw 700 h, "
        "which leaves 300 h; 500 h are asked for"
    )
    assert refusal.remedy == "award at most 300 h, or get 200 h more capacity, or reclaim what lies unused"
    move(session, "available", "held", own, 400)
    assert asked(session, 600, programme=owner, start_on=date(2027, 4, 1)).refusals == [], "the hold is no promise"


def test_more_is_promised_than_there_is(session: Session) -> None:
    owner = programme(session, hours=10_000)
    contract(session, 100)
    award(session, owner, 400)
    answer = asked(session, 500, programme=owner)
    [refusal] = answer.refusals
    assert (answer.capacity_left, answer.largest) == (-300 * HOUR, -300 * HOUR)
    assert "which leaves -300 h; 500 h are asked for" in refusal.detail
    assert refusal.remedy == "get 800 h more capacity, or reclaim what lies unused"


def test_holds_and_what_jobs_used_beyond_them_are_gone_from_a_contract(session: Session) -> None:
    owner = programme(session, hours=10_000)
    signed = contract(session, 1000)
    move(session, "available", "held", signed.id, 300)
    [left] = asked(session, 1, programme=owner).contracts
    assert (left.left, left.held) == (700 * HOUR, 300 * HOUR)
    move(session, "overrun", "consumed", signed.id, 50)
    [left] = asked(session, 1, programme=owner).contracts
    assert left.left == 650 * HOUR


def test_a_site_and_a_class(session: Session) -> None:
    owner = programme(session, hours=10_000)
    contract(session, 1000)
    contract(session, 60, site="sit-2")
    contract(session, 30, site="sit-2", gpu_class="h100-80")
    assert asked(session, 1090, programme=owner).refusals == []
    assert asked(session, 91, programme=owner, site_id="sit-2").largest == 90 * HOUR
    assert asked(session, 31, programme=owner, site_id="sit-2", gpu_class="h100-80").largest == 30 * HOUR
    [refusal] = asked(session, 1, programme=owner, site_id="sit-3").refusals
    assert refusal.detail == (
        "the Region has no such contract between 2027-03-01 and 2027-08-31, so no capacity to promise"
    )
    [refusal] = asked(session, 1, start_on=date(2027, 12, 31), end_on=date(2027, 12, 31), gpu_class="none").refusals
    assert refusal.side == "contracts"


def test_capacity_is_counted_at_the_weight_that_awards_are_drawn_at(session: Session) -> None:
    owner = programme(session, hours=10_000)
    contract(session, 1000)
    set_weight(session, "a100-80", 3000, period(FIRST, FIRST)[0])
    assert asked(session, 1500, programme=owner).largest == 1500 * HOUR, "the same GPU-hours weigh half more"
    contract(session, 40, gpu_class="h100-80")
    assert asked(session, 1540, programme=owner).largest == 1540 * HOUR, "a class without a weight yet: its contract's"


def test_the_policy_refuses_before_any_money(session: Session) -> None:
    owner = programme(session, hours=10_000, longest_months=3, awards_per_year_max=1, natures=["none"])
    contract(session, 5000)
    [refusal] = asked(session, 1, programme=owner).refusals
    assert (refusal.side, refusal.remedy) == ("policy", "end it on 2027-05-31 or earlier")
    last = date(2027, 5, 31)
    assert asked(session, 1, programme=owner, end_on=last).refusals == []
    [refusal] = asked(session, 1, programme=owner, end_on=last, data_class=("internal", "health")).refusals
    assert "takes no data whose nature is health" in refusal.detail
    award(session, owner, 10, "prj-1")
    answer = asked(session, 1, programme=owner, end_on=last, project_id="prj-2")
    assert ("begins at most 1 awards a year" in answer.refusals[0].detail, answer.binds) == (True, "policy")
    assert asked(session, 1, programme=owner, end_on=last, project_id="prj-1").refusals == [], "it is counted already"


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


@pytest.fixture
def typist(
    region: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Typist]:
    with served(region, tmp_path, monkeypatch, capfd) as made:
        yield made


def test_a_manager_asks(region: World, typist: Typist) -> None:
    """The region's contract has 5000 A100-hours, 10000 h; two awards of 100 h are out of a budget of 10000 h."""
    today = paris_today()
    said = typist.done("marc", "programme", "can-award", "5000h")
    assert said.startswith(f"yes: 5000 h can be awarded from {today} to ")
    assert "  first to bind: budget, at 9800 h\n" in said
    assert "Contracts, of which other awards may still draw 200 h\n" in said
    assert any(line.split()[:2] == ["teratec", "a100-80"] and "10000 h" in line for line in said.splitlines())
    region.submit()
    ran = typist("marc", "programme", "can-award", "9900h", "--project", "vision", "--site", "teratec")
    assert ran.code == 3
    assert f"no: 9900 h cannot be awarded from {today}" in ran.out
    assert "  budget: programme pack-ia-2026 has 9800 h left to award" in ran.out
    assert "  contracts: the contracts that run from" in ran.out
    ran = typist("marc", "programme", "can-award", "1h", "--gpu-class", "h100-80", "--json")
    answer = json.loads(ran.out)
    assert (ran.code, answer["binds"], answer["largest_credits"]) == (3, "contracts", None)
    assert answer["contracts"] == []
    assert "none runs then" in typist("marc", "programme", "can-award", "1h", "--gpu-class", "h100-80").out


def test_what_cannot_be_asked(region: World, typist: Typist) -> None:
    today = paris_today()
    days = ("--from", str(today), "--to", str(today - timedelta(days=1)))
    ran = typist("marc", "programme", "can-award", "1h", *days)
    assert (ran.code, "is before the first" in ran.err) == (2, True)
    typist.done("marc", "programme", "open", "other", "--budget", "1h")
    ran = typist("marc", "programme", "can-award", "1h", "--project", "vision", "--programme", "other")
    assert (ran.code, "project vision belongs to programme pack-ia-2026" in ran.err) == (2, True)
    assert typist("marc", "programme", "can-award", "1h", "--programme", "none").code == 4
    assert typist("marc", "programme", "can-award", "1h", "--site", "none").code == 4
    assert typist("ines", "programme", "can-award", "1h").code == 6


def test_the_policys_longest_is_the_default_length(region: World) -> None:
    body = {"name": "short", "longest_months": 3, "budgets": [BUDGET]}
    region.post("marc", "/programmes", body)
    answer = region.get("marc", "/can-award?amount_credits=3600000&programme=short&start_on=2027-01-15")
    assert answer["end_at"] == "2027-04-14T22:00:00Z"
    answer = region.get("marc", "/can-award?amount_credits=3600000&start_on=2027-01-15&end_on=2027-01-15")
    assert (answer["start_at"], answer["end_at"]) == ("2027-01-14T23:00:00Z", "2027-01-15T23:00:00Z")


BUDGET = {"start_on": "2026-01-01", "end_on": "2099-12-31", "credits": HOUR}
