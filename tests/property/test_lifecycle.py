"""Moves, amounts and days: what holds for all of them, not for examples only."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounting.meter import EndedAttempt, Owner, meter
from broker.lifecycle import ENDED, JobState, is_legal
from quotas.amounts import CREDITS_PER_HOUR, credits_of, day_start, hours_text, period
from quotas.holds import HoldLeft, Side
from storage.tables import from_microseconds, microseconds

PARIS = ZoneInfo("Europe/Paris")
DAYS = st.dates(date(1970, 1, 2), date(2100, 12, 31))
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))


def reachable(start: JobState) -> set[JobState]:
    seen, left = {start}, [start]
    while left:
        here = left.pop()
        new = {state for state in JobState if is_legal(here, state)} - seen
        seen |= new
        left += new
    return seen


def test_every_state_is_reached_from_held() -> None:
    assert reachable(JobState.HELD) == set(JobState)


def test_every_open_state_can_come_to_an_end() -> None:
    for state in set(JobState) - ENDED:
        assert reachable(state) & ENDED, state


def test_ended_states_are_final_and_no_move_stays() -> None:
    for before in JobState:
        assert not is_legal(before, before)
        for after in JobState:
            assert not (before in ENDED and is_legal(before, after))


def test_nothing_reaches_a_site_without_its_intent_written() -> None:
    at_site = {JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED, JobState.TIMED_OUT, JobState.OUT_OF_MEMORY}
    assert not any(is_legal(JobState.HELD, state) for state in at_site)
    assert is_legal(JobState.HELD, JobState.DISPATCHING)


@given(st.integers(0, 4096), st.integers(0, 2_592_000), st.integers(1, 1_000_000))
def test_a_charge_is_gpus_times_seconds_times_weight(gpus: int, elapsed_s: int, weight: int) -> None:
    assert credits_of(gpus, elapsed_s, weight) == gpus * elapsed_s * weight < 2**63


@given(st.integers(), st.integers(), st.integers())
def test_nothing_negative_is_an_amount(gpus: int, seconds: int, weight: int) -> None:
    if min(gpus, seconds, weight) < 0:
        with pytest.raises(ValueError):
            credits_of(gpus, seconds, weight)


@given(st.integers(0, 64), st.integers(0, 100_000), st.integers(1, 10_000), st.integers(0, 10**12))
def test_a_charge_splits_into_what_the_hold_covers_and_the_overrun(
    gpus: int, elapsed_s: int, weight: int, remaining: int
) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    owner = Owner("job-1", "awd-1", "prj-1", "prg-1", "sit-1", "a100-80", weight)
    attempt = EndedAttempt("key", "succeeded", "COMPLETED", gpus, elapsed_s, moment, moment)
    left = HoldLeft("job-1", Side("awd-1", remaining, weight), Side("ctr-1", remaining, weight + 1))
    metered = meter(owner, attempt, left, moment)
    by_kind = {movement.kind: movement.amount for movement in metered.posting.movements}
    for prefix, before, after, w in (
        ("", left.award, metered.left.award, weight),
        ("contract-", left.contract, metered.left.contract, weight + 1),
    ):
        charge = gpus * elapsed_s * w
        settled, overrun = by_kind.get(f"{prefix}settle", 0), by_kind.get(f"{prefix}overrun", 0)
        assert settled + overrun == charge
        assert settled == min(charge, remaining) == before.amount - after.amount
    assert metered.charge == gpus * elapsed_s * weight
    assert all(amount > 0 for amount in by_kind.values())


@given(st.integers(-(2**62), 2**62))
def test_hours_are_rounded_towards_zero_by_less_than_a_thousandth(amount: int) -> None:
    text = hours_text(amount)
    assert text.endswith(" h")
    whole, _, rest = text.removesuffix(" h").lstrip("-").partition(".")
    thousandths = int(whole) * 1000 + int(rest.ljust(3, "0") or "0")
    assert 0 <= abs(amount) * 1000 - thousandths * CREDITS_PER_HOUR < CREDITS_PER_HOUR
    assert len(rest) <= 3
    assert not rest.endswith("0")


@given(st.integers(0, 10**9))
def test_whole_hours_lose_no_zero(hours: int) -> None:
    assert hours_text(hours * CREDITS_PER_HOUR) == f"{hours} h"


@given(DAYS)
def test_a_day_begins_at_midnight_in_paris(day: date) -> None:
    local = day_start(day).astimezone(PARIS)
    assert (local.date(), local.hour, local.minute) == (day, 0, 0)


@given(DAYS, st.integers(0, 800))
def test_a_period_holds_its_days_and_no_other(start_on: date, length: int) -> None:
    end_on = start_on + timedelta(days=length)
    start_at, end_at = period(start_on, end_on)
    assert (start_at.astimezone(PARIS).date(), (end_at - timedelta(microseconds=1)).astimezone(PARIS).date()) == (
        start_on,
        end_on,
    )
    assert period(end_on + timedelta(days=1), end_on + timedelta(days=1))[0] == end_at


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24), (date(2028, 2, 29), 24)],
)
def test_a_day_lasts_as_long_as_it_does_in_paris(day: date, hours: int) -> None:
    start_at, end_at = period(day, day)
    assert end_at - start_at == timedelta(hours=hours)


@given(MOMENTS)
def test_a_moment_comes_back_from_the_database_as_it_was(moment: datetime) -> None:
    assert from_microseconds(microseconds(moment)) == moment
