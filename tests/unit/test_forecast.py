"""What becomes of an award: rates, days and what is left, where it is known, and the reason where it is not."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session
from world import HOUR

from quotas.amounts import PARIS, day_start
from quotas.balances import Balances
from quotas.ceilings import Limit, set_ceiling
from quotas.forecast import WINDOW_DAYS, Forecast, Risk, Use, forecast, window_start
from quotas.ledger import Movement, Posting, account_id, post
from quotas.models import Award
from quotas.outlook import charged_by_day, forecasts_of
from quotas.policy import ProgrammePolicy
from quotas.programmes import grant_award, open_programme, set_weight
from storage.database import Database

NOW = datetime(2026, 11, 10, 9, 0, tzinfo=UTC)
"""A Tuesday morning in Paris, two weeks after the clocks went back."""
TODAY = date(2026, 11, 10)


def use(**changes: object) -> Use:
    known = {
        "start_at": day_start(date(2026, 10, 1)),
        "end_at": day_start(date(2027, 1, 1)),
        "balances": Balances(available=600 * HOUR, held=40 * HOUR, consumed=360 * HOUR, overrun=0),
        "charged_by_day": {TODAY - timedelta(days=number): 12 * HOUR for number in range(1, WINDOW_DAYS)},
    }
    return Use(**{**known, **changes})  # type: ignore[arg-type]


def test_the_day_on_which_a_budget_runs_out() -> None:
    found = forecast(use(), NOW)
    # 13 days of 12 h each, in the 13 days and 10 hours since the window began.
    assert found.burn_credits_per_day == 13 * 12 * HOUR * 86_400 // ((13 * 24 + 10) * 3600)
    assert found.runs_out_on is None
    assert found.left_at_end_credits == 640 * HOUR - 13 * 12 * HOUR * ((51 * 24 + 14) * 3600) // ((13 * 24 + 10) * 3600)
    assert found.burn_unknown is None
    assert found.risks == ()
    spent = forecast(use(balances=Balances(230 * HOUR, 0, 770 * HOUR, 0)), NOW)
    assert (spent.runs_out_on, spent.left_at_end_credits, spent.risks) == (date(2026, 11, 30), 0, (Risk.RUNS_OUT,))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"start_at": day_start(date(2026, 12, 1))}, "it begins on 2026-12-01"),
        ({"end_at": NOW}, "it has ended"),
        ({"start_at": NOW - timedelta(hours=23)}, "it began less than a day ago"),
        ({"balances": Balances(HOUR, HOUR, 0, 0), "charged_by_day": {}}, "nothing has been charged yet"),
        ({"charged_by_day": {TODAY: -HOUR}}, "more was given back than charged in the last 14 days"),
    ],
)
def test_what_is_unknown_says_why(changes: dict[str, object], reason: str) -> None:
    found = forecast(use(**changes), NOW)
    assert found.burn_unknown == reason
    assert found.burn_credits_per_day is found.left_at_end_credits is found.runs_out_on is None


def test_a_pause_of_two_weeks_is_a_rate_of_nothing_and_not_unknown() -> None:
    found = forecast(use(charged_by_day={TODAY - timedelta(days=WINDOW_DAYS): HOUR}), NOW)
    assert (found.burn_credits_per_day, found.left_at_end_credits, found.runs_out_on) == (0, 640 * HOUR, None)
    assert found.risks == (Risk.UNBURNT,)


def test_what_no_ceiling_could_burn() -> None:
    found = forecast(use(gpus_running_max=1, weight_thousandths=500), NOW)
    assert found.burnable_credits == (51 * 24 + 14) * HOUR // 2
    assert (found.unburnable_credits, found.ceiling_unknown) == (640 * HOUR - (51 * 24 + 14) * HOUR // 2, None)
    assert found.risks == (Risk.UNBURNABLE,)
    assert forecast(use(gpus_running_max=1, weight_thousandths=4000), NOW).unburnable_credits == 0
    ahead = use(start_at=day_start(date(2026, 12, 1)), gpus_running_max=1, weight_thousandths=1000)
    assert forecast(ahead, NOW).burnable_credits == 31 * 24 * HOUR, "only from its start"
    assert forecast(use(gpus_running_max=0, weight_thousandths=1000), NOW).unburnable_credits == 640 * HOUR
    assert forecast(use(weight_thousandths=1000), NOW).ceiling_unknown == "no ceiling of GPUs at once is set"
    assert forecast(use(gpus_running_max=1), NOW).ceiling_unknown == "no GPU class is known"
    over = forecast(use(end_at=NOW - timedelta(days=1), gpus_running_max=1, weight_thousandths=1000), NOW)
    assert (over.burnable_credits, over.unburnable_credits, over.risks) == (0, 640 * HOUR, ())


def test_an_award_that_nobody_ever_used_is_at_risk() -> None:
    nothing = {"balances": Balances(HOUR, 0, 0, 0), "charged_by_day": {}}
    assert forecast(use(**nothing), NOW).risks == (Risk.UNUSED,)
    assert forecast(use(**nothing, start_at=NOW - timedelta(days=13)), NOW).risks == ()


amounts = st.integers(0, 10**13)
uses = st.builds(
    Use,
    start_at=st.datetimes(datetime(2026, 1, 1), datetime(2026, 11, 20), timezones=st.just(UTC)),
    end_at=st.datetimes(datetime(2026, 11, 21), datetime(2027, 12, 31), timezones=st.just(UTC)),
    balances=st.builds(Balances, amounts, amounts, amounts, st.just(0)),
    charged_by_day=st.dictionaries(
        st.dates(TODAY - timedelta(days=30), TODAY), st.integers(-(10**10), 10**12), max_size=20
    ),
    gpus_running_max=st.none() | st.integers(0, 4096),
    weight_thousandths=st.none() | st.integers(1, 8000),
)


def left_of(use: Use) -> int:
    return use.balances.available + use.balances.held


@given(uses)
def test_every_figure_is_known_or_says_why(use: Use) -> None:
    found = forecast(use, NOW)
    assert (
        (found.burn_credits_per_day is None) == (found.burn_unknown is not None) == (found.left_at_end_credits is None)
    )
    assert (found.burnable_credits is None) == (found.ceiling_unknown is not None) == (found.unburnable_credits is None)


@given(uses)
def test_it_runs_out_before_the_end_or_something_may_be_left(use: Use) -> None:
    found = forecast(use, NOW)
    if found.runs_out_on is not None:
        assert found.left_at_end_credits == 0
        assert TODAY <= found.runs_out_on <= use.end_at.astimezone(PARIS).date()
    if found.left_at_end_credits is not None:
        assert 0 <= found.left_at_end_credits <= left_of(use)
    if found.unburnable_credits is not None and found.burnable_credits is not None:
        assert found.unburnable_credits == max(0, left_of(use) - found.burnable_credits)


@given(uses, st.integers(1, 10**12))
def test_more_burnt_never_lasts_longer(use: Use, more: int) -> None:
    def changed(amount: int) -> Forecast:
        days = {**use.charged_by_day, TODAY: use.charged_by_day.get(TODAY, 0) + amount}
        return forecast(Use(use.start_at, use.end_at, use.balances, days), NOW)

    slow, fast = changed(0), changed(more)
    if slow.runs_out_on is not None:
        assert fast.runs_out_on is not None
        assert fast.runs_out_on <= slow.runs_out_on
    if slow.left_at_end_credits is not None:
        assert fast.left_at_end_credits is not None
        assert fast.left_at_end_credits <= slow.left_at_end_credits


@given(uses, st.dates(TODAY - timedelta(days=400), TODAY - timedelta(days=WINDOW_DAYS)), amounts)
def test_what_was_charged_before_the_window_changes_nothing(use: Use, day: date, amount: int) -> None:
    days = {d: a for d, a in use.charged_by_day.items() if d != day}
    one, other = (
        forecast(Use(use.start_at, use.end_at, use.balances, charged), NOW) for charged in (days, {**days, day: amount})
    )
    assert one == other


def award(session: Session, name: str) -> Award:
    policy = ProgrammePolicy(kind="other")
    year = (day_start(date(2026, 1, 1)), day_start(date(2027, 1, 1)), 10_000 * HOUR)
    programme = open_programme(session, name=name, policy=policy, budgets=[year])
    return grant_award(
        session,
        project_id=f"prj-{name}",
        programme=programme,
        amount_credits=1000 * HOUR,
        start_at=day_start(date(2026, 10, 1)),
        end_at=day_start(date(2027, 1, 1)),
    )


def charge(session: Session, award: Award, number: int, amount: int, at: datetime) -> None:
    session.flush()
    consumed, overrun = account_id("consumed", award.id), account_id("overrun", award.id)
    movement = Movement(f"overrun/{award.id}/{number}", "overrun", overrun, consumed, amount, "job-x")
    assert post(session.connection(), [Posting((movement,))], at)


def test_charges_are_summed_by_day_in_paris(database: Database) -> None:
    first = window_start(NOW)
    midnight = day_start(TODAY)
    with database.write() as session:
        one, other, idle = award(session, "one"), award(session, "other"), award(session, "idle")
        charge(session, one, 1, 5, first - timedelta(microseconds=1))
        charge(session, one, 2, 7, first)
        charge(session, one, 3, 11, midnight - timedelta(microseconds=1))
        charge(session, one, 4, 13, midnight)
        charge(session, one, 5, 17, NOW)
        charge(session, other, 6, 19, NOW)
        back = Movement("refund/x", "refund", account_id("consumed", one.id), account_id("available", one.id), 3, "x")
        assert post(session.connection(), [Posting((back,))], NOW)
        found = charged_by_day(session, [one.id, idle.id], NOW)
    assert found == {
        one.id: {TODAY - timedelta(days=13): 7, TODAY - timedelta(days=1): 11, TODAY: 13 + 17 - 3},
    }


def test_forecasts_of_awards_read_the_books(database: Database) -> None:
    with database.write() as session:
        one, idle = award(session, "one"), award(session, "idle")
        charge(session, one, 1, 10 * HOUR, NOW - timedelta(days=2))
        assert forecasts_of(session, [one], NOW)[one.id].ceiling_unknown == "no ceiling of GPUs at once is set"
        set_weight(session, "a100-80", 2000, day_start(date(2026, 1, 1)))
        for scope, scope_id, what, amount in (
            ("programme", one.programme_id, "gpus_running", 4),
            ("project", one.project_id, "gpus_running", 1),
            ("award", one.id, "jobs_queued", 0),
        ):
            set_ceiling(session, Limit(scope, scope_id, what, amount), "psn-marc")  # type: ignore[arg-type]
        found = forecasts_of(session, [one, idle], NOW)
        assert forecasts_of(session, [], NOW) == {}
    assert found[one.id].burnable_credits == (51 * 24 + 14) * HOUR * 2, "one GPU of the heaviest class"
    assert found[idle.id].ceiling_unknown == "no ceiling of GPUs at once is set"
    assert found[idle.id].burn_unknown == "nothing has been charged yet"
    assert found[one.id].burn_credits_per_day == 10 * HOUR * 86_400 // ((13 * 24 + 10) * 3600)
