"""The arithmetic of State aid: values in euros, windows of years and their edges, the dearest rate."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from aid_rules import EURO, HOUR, NEW, OLD, RULES

from quotas.aid_arithmetic import (
    CountedAid,
    aid_value,
    first_fitting_day,
    largest_credits,
    leaves_on,
    reference_rate,
    sum_on,
    tightest,
    window_start,
)
from quotas.amounts import euros_text, paris_day


def aid(day: date, euros: int, *, declared: bool = False) -> CountedAid:
    return CountedAid(day, "org-acme", euros * EURO, "CP 1", "Bpifrance" if declared else None, f"aid-{day}-{euros}")


def test_the_value_is_the_public_share_of_the_hours_rounded_down_to_the_micro_euro() -> None:
    assert aid_value(100 * HOUR, 2_350_000, 1000) == 235_000_000
    assert aid_value(100 * HOUR, 2_350_000, 500) == 117_500_000
    assert aid_value(HOUR // 3, 1_000_000, 1000) == 333_333
    assert aid_value(1, 1, 1000) == 0
    assert aid_value(100 * HOUR, 2_350_000, 0) == 0, "what the company pays is no aid"


@pytest.mark.parametrize(("room", "rate", "share"), [(0, 7, 999), (123_456_789, 2_350_000, 500), (5, 1, 1), (1, 9, 3)])
def test_the_largest_amount_is_the_last_that_fits(room: int, rate: int, share: int) -> None:
    most = largest_credits(room, rate, share)
    assert most is not None
    assert aid_value(most, rate, share) <= room < aid_value(most + 1, rate, share)


def test_the_largest_amount_where_nothing_fits_or_nothing_has_a_value() -> None:
    assert largest_credits(-1, EURO, 1000) == 0
    assert largest_credits(10, 0, 1000) is None
    assert largest_credits(10, EURO, 0) is None


def test_the_reference_rate_is_the_dearest_per_normalised_hour() -> None:
    weights = {"v100-32": 1000, "a100-80": 2000, "h100-80": 4000}
    tariffs = {("ovh", "v100-32"): 900_000, ("ovh", "a100-80"): 2_100_000, ("genci", "h100-80"): 3_999_999}
    assert reference_rate(tariffs, weights) == 1_050_000
    assert reference_rate({("genci", "h100-80"): 3_999_999}, weights) == 999_999, "rounded down"
    assert reference_rate({("ovh", "b200"): 9_000_000}, weights) is None, "no job can run on a class without weight"
    assert reference_rate({}, weights) is None, "never guessed"


@pytest.mark.parametrize(
    ("day", "start"),
    [
        (date(2024, 1, 30), date(2021, 1, 30)),  # the Walloon authority's own example
        (date(2027, 3, 10), date(2024, 3, 10)),
        (date(2028, 2, 29), date(2025, 2, 28)),
        (date(2027, 2, 28), date(2024, 2, 28)),
        (date(2027, 3, 1), date(2024, 3, 1)),
    ],
)
def test_the_window_begins_with_the_same_date_three_years_before(day: date, start: date) -> None:
    assert window_start(day, 3) == start


@pytest.mark.parametrize(
    ("granted", "left"),
    [
        (date(2024, 3, 10), date(2027, 3, 11)),
        (date(2024, 12, 31), date(2028, 1, 1)),
        (date(2024, 2, 28), date(2027, 3, 1)),
        (date(2024, 2, 29), date(2027, 3, 1)),
        (date(2025, 2, 28), date(2028, 3, 1)),  # the window of 29 February 2028 begins with 28 February 2025
        (date(2025, 3, 1), date(2028, 3, 2)),
    ],
)
def test_an_aid_leaves_the_window_on_the_day_after_its_anniversary(granted: date, left: date) -> None:
    assert leaves_on(granted, 3) == left
    assert window_start(left, 3) > granted
    assert window_start(date.fromordinal(left.toordinal() - 1), 3) <= granted


def test_a_window_holds_both_its_ends() -> None:
    aids = [aid(date(2024, 3, 9), 1), aid(date(2024, 3, 10), 2), aid(date(2027, 3, 10), 4, declared=True)]
    found = sum_on([*aids, aid(date(2027, 3, 11), 8)], NEW, date(2027, 3, 10))
    assert (found.from_on, found.to_on) == (date(2024, 3, 10), date(2027, 3, 10))
    assert (found.declared_micro_euros, found.counted_micro_euros) == (4 * EURO, 2 * EURO)
    assert found.left_micro_euros == 299_994 * EURO
    assert [one.value_micro_euros for one in found.aids] == [2 * EURO, 4 * EURO]


def test_the_day_of_a_grant_is_that_of_paris() -> None:
    assert paris_day(datetime(2026, 12, 31, 23, 30, tzinfo=UTC)) == date(2027, 1, 1)
    assert paris_day(datetime(2026, 6, 30, 21, 59, tzinfo=UTC)) == date(2026, 6, 30)


def test_two_regulations_stand_side_by_side() -> None:
    assert RULES.ceiling_on(date(2023, 12, 31)) == OLD
    assert RULES.ceiling_on(date(2024, 1, 1)) == NEW
    assert RULES.ceiling_on(date(2013, 12, 31)) is None
    assert RULES.ceiling_on(date(2031, 1, 1)) is None, "an end that is known is an end"
    endless = replace(RULES, ceilings=(OLD, replace(NEW, valid_until=None)))
    assert endless.ceiling_on(date(2099, 1, 1)) is not None
    overlapping = replace(RULES, ceilings=(replace(OLD, valid_until=None), NEW))
    assert overlapping.ceiling_on(date(2026, 1, 1)) == NEW, "the one that began last"


def test_the_tightest_window_may_end_with_a_later_aid() -> None:
    aids = [aid(date(2025, 1, 1), 100_000), aid(date(2027, 6, 1), 150_000)]
    found = tightest(aids, RULES, date(2025, 2, 1))
    assert found is not None
    assert (found.to_on, found.left_micro_euros) == (date(2027, 6, 1), 50_000 * EURO)
    too_late = tightest([aid(date(2029, 1, 1), 290_000)], RULES, date(2025, 2, 1))
    assert too_late is not None
    assert too_late.left_micro_euros == 300_000 * EURO, "no three years hold both"
    assert tightest(aids, RULES, date(2013, 1, 1)) is None
    beyond = tightest([aid(date(2032, 1, 1), 290_000)], RULES, date(2030, 12, 1))
    assert beyond is not None
    assert beyond.left_micro_euros == 10_000 * EURO, "the day's own ceiling where a later day has none"


def test_the_first_day_on_which_an_aid_would_pass() -> None:
    aids = [aid(date(2024, 3, 10), 100_000), aid(date(2025, 5, 5), 150_000)]
    day = date(2026, 1, 1)
    assert first_fitting_day(aids, RULES, day, 150_000 * EURO) == date(2027, 3, 11)
    assert first_fitting_day(aids, RULES, day, 160_000 * EURO) == date(2028, 5, 6)
    assert first_fitting_day(aids, RULES, day, 300_001 * EURO) is None
    assert first_fitting_day(aids, RULES, date(2013, 1, 1), EURO) is None
    gone = [aid(date(2020, 1, 1), 100_000), *aids]
    assert first_fitting_day(gone, RULES, day, 150_000 * EURO) == date(2027, 3, 11), "never a day that has passed"


@pytest.mark.parametrize(
    ("micro_euros", "text"),
    [
        (37_000 * EURO, "37000 €"),
        (2_350_000, "2.35 €"),
        (500_000, "0.50 €"),
        (333_333, "0.333333 €"),
        (0, "0 €"),
        (-12_500_000, "-12.50 €"),
    ],
)
def test_euros_are_worded_exactly(micro_euros: int, text: str) -> None:
    assert euros_text(micro_euros) == text
