"""States, moves, dates and notices of awards: pure."""

from datetime import UTC, date, datetime, timedelta

import pytest

from quotas.amounts import day_start
from quotas.award_life import GRANTED, UNDECIDED, AwardState, StoragePhase, is_legal, storage_dates, storage_phase
from quotas.award_notices import notices_of

END = day_start(date(2027, 7, 1))
START = day_start(date(2027, 1, 1))


def test_every_state_is_reached_and_three_are_final() -> None:
    reached = {after for before in AwardState for after in AwardState if is_legal(before, after)}
    assert reached == set(AwardState) - {AwardState.REQUESTED}
    final = {state for state in AwardState if not any(is_legal(state, after) for after in AwardState)}
    assert final == {AwardState.REFUSED, AwardState.WITHDRAWN, AwardState.CLOSED}


def test_nothing_that_was_granted_is_undecided_again() -> None:
    assert not any(is_legal(before, after) for before in GRANTED for after in UNDECIDED)
    assert not any(is_legal(state, state) for state in AwardState)


@pytest.mark.parametrize(
    ("after_end", "phase"),
    [
        (timedelta(microseconds=-1), StoragePhase.WRITABLE),
        (timedelta(0), StoragePhase.READ_ONLY),
        (timedelta(days=1, microseconds=-1), StoragePhase.READ_ONLY),
        (timedelta(days=1), StoragePhase.EXPORT),
        (timedelta(days=30, microseconds=-1), StoragePhase.EXPORT),
        (timedelta(days=30), StoragePhase.CLOSED),
    ],
)
def test_what_may_be_done_with_data(after_end: timedelta, phase: StoragePhase) -> None:
    assert storage_phase(END, 30, END + after_end) is phase


def test_no_days_for_export() -> None:
    assert storage_phase(END, 0, END) is StoragePhase.CLOSED
    assert storage_dates(END, 0).export_from == END


def test_days_of_storage_are_days_in_paris_over_a_clock_change() -> None:
    """An award that ends with 10 October 2026, before the clocks go back on the 25th."""
    end_at = day_start(date(2026, 10, 11))
    dates = storage_dates(end_at, 30)
    assert dates.export_from == day_start(date(2026, 10, 12))
    assert dates.export_until == day_start(date(2026, 11, 10)) == end_at + timedelta(days=30, hours=1)
    on_the_day = storage_dates(day_start(date(2026, 10, 25)), 30)
    assert on_the_day.export_from == day_start(date(2026, 10, 26)), "a day of 25 hours"
    start_at, shown = day_start(date(2026, 1, 1)), day_start(date(2026, 10, 10))
    (told,) = notices_of(AwardState.ACTIVE, start_at, day_start(date(2026, 11, 9)), 30, 30, shown)
    assert "in 29 days, with 2026-11-08" in told


def said(now: datetime, state: AwardState = AwardState.ACTIVE, end_at: datetime = END) -> list[str]:
    return notices_of(state, START, end_at, 30, 30, now)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (END - timedelta(days=30), "it ends in 29 days, with 2027-06-30"),
        (END - timedelta(days=1, seconds=1), "it ends tomorrow"),
        (END - timedelta(seconds=1), "it ends today"),
        (END, "it has ended; its data may be exported until 2027-07-30"),
        (END + timedelta(days=30, seconds=-1), "it has ended"),
    ],
)
def test_the_end_is_told(now: datetime, words: str) -> None:
    [sentence] = said(now)
    assert words in sentence


@pytest.mark.parametrize("now", [END - timedelta(days=30, seconds=1), END + timedelta(days=30)])
def test_nothing_is_told_too_early_or_too_late(now: datetime) -> None:
    assert said(now) == []


def test_what_is_told_of_other_states() -> None:
    now = END - timedelta(days=3)
    assert said(now, AwardState.REQUESTED) == []
    assert said(now, AwardState.EXPIRING, end_at=now - timedelta(hours=1)) != []
    assert notices_of(AwardState.ACTIVE, END - timedelta(days=2), END, 30, 30, now) == [], "before it begins"
    assert said(datetime(2027, 6, 30, 12, tzinfo=UTC)) == [
        "it ends today, with 2027-06-30; from then its data is read-only, and may be exported until 2027-07-30"
    ]
