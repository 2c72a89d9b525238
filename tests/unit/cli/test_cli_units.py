"""Durations, memory, GPU-hours and days."""

import time
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import units
from cli.exits import Exit, Failure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1", 60),
        ("90", 5400),
        ("10:30", 630),
        ("1:00:00", 3600),
        ("1-0", 86400),
        ("2-12", 216000),
        ("1-2:30", 95400),
        ("1-02:30:15", 95415),
        ("90m", 5400),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("60s", 60),
        (" 2h ", 7200),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert units.duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0:59", "59s", "h", "-5", "1.5h", "2 h", "1:2:3:4", "inf", "٣h", "9" * 40, "1h30"]
)
def test_durations_that_are_refused(text: str) -> None:
    with pytest.raises(Failure) as refused:
        units.duration_s(text)
    assert refused.value.exit_code is Exit.USAGE


@given(st.integers(min_value=60, max_value=30 * 86400))
def test_a_duration_reads_back_as_it_is_written(seconds: int) -> None:
    assert units.duration_s(units.duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "mib"), [("4G", 4096), ("512M", 512), ("512", 512), ("1T", 2**20), ("1500K", 2), ("4GB", 4096)]
)
def test_memory(text: str, mib: int) -> None:
    assert units.memory_mib(text) == mib


@pytest.mark.parametrize("text", ["", "0", "0G", "-1", "4P", "4.5G", "G", "1" * 30])
def test_memory_that_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        units.memory_mib(text)


@pytest.mark.parametrize(
    ("text", "amount"), [("100h", 360_000_000), ("100", 360_000_000), ("1.5h", 5_400_000), ("0.00001h", 36)]
)
def test_hours_become_credits_exactly(text: str, amount: int) -> None:
    assert units.credits_of_hours(text) == amount


@pytest.mark.parametrize(
    "text", ["0", "0h", "-1h", "1e3", "NaN", "0.0000001h", "h", "", "1,5h", "99999999999h", "1" * 50]
)
def test_hours_that_are_refused(text: str) -> None:
    with pytest.raises(Failure):
        units.credits_of_hours(text)


@given(st.integers(min_value=1, max_value=2**53))
def test_hours_are_never_shown_as_more_than_they_are_nor_as_zero(amount: int) -> None:
    shown = units.hours_text(amount)
    assert shown != "0 h"
    if amount >= 360_000:
        assert float(shown.removesuffix(" h").replace(",", "")) * 3_600_000 <= amount + 1


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 h"),
        (None, "unknown"),
        (3_600_000, "1 h"),
        (359_999_999, "99.99 h"),
        (24_000, "0.0067 h"),
        (1_320_000, "0.366 h"),
        (1, "<0.0001 h"),
        (-3_600_000, "-1 h"),
        (4_500_000_000, "1250 h"),
    ],
)
def test_hours_text(amount: int | None, text: str) -> None:
    assert units.hours_text(amount) == text


def test_days_in_paris_come_back_in_summer_and_winter() -> None:
    assert str(units.first_day("2025-12-31T23:00:00Z")) == "2026-01-01"
    assert str(units.first_day("2026-06-30T22:00:00Z")) == "2026-07-01"
    assert str(units.last_day("2026-06-30T22:00:00Z")) == "2026-06-30"
    assert str(units.last_day("2025-12-31T23:00:00Z")) == "2025-12-31"


@pytest.mark.parametrize("text", ["2026-13-01", "31/12/2026", "tomorrow", ""])
def test_days_that_are_refused(text: str) -> None:
    with pytest.raises(Failure):
        units.day(text)


def test_today_is_the_day_in_paris_wherever_the_desk_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(zone: str) -> date:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        return units.paris_today()

    try:
        before, west, east, after = (at(zone) for zone in ("UTC", "Pacific/Honolulu", "Pacific/Kiritimati", "UTC"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert {west, east} <= {before, after}, "two desks whose own days always differ"
