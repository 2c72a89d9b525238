"""Euros of a charge: exact, rounded down, and divided without a micro-euro lost or made."""

from decimal import ROUND_FLOOR, Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from accounting.refund_values import NOTHING, part_of
from accounting.tariffs import Euros, added, divide, split, value_micro_euros
from quotas.programmes import Shares

shares = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(sorted).map(
    lambda cuts: Shares(cuts[0], cuts[1] - cuts[0], 1000 - cuts[1])
)  # fmt: skip
amounts = st.integers(0, 10**15)


@given(amounts, st.integers(1, 1_000_000), st.integers(0, 10**12))
def test_the_value_is_the_gpu_hours_times_the_tariff_rounded_down(charge: int, weight: int, tariff: int) -> None:
    with localcontext() as exact:
        exact.prec = 60
        gpu_hours = Decimal(charge) / (Decimal(weight) * 3600)
        wanted = (gpu_hours * tariff).quantize(Decimal(1), rounding=ROUND_FLOOR)
        found = value_micro_euros(charge, weight, tariff)
        assert found * weight * 3600 <= charge * tariff < (found + 1) * weight * 3600
        assert abs(found - wanted) <= 1  # the decimals themselves are rounded


def test_one_hour_of_one_gpu_costs_the_tariff() -> None:
    assert value_micro_euros(3600 * 2000, 2000, 2_350_000) == 2_350_000
    assert value_micro_euros(2 * 600 * 2000, 2000, 2_350_000) == 783_333


@given(amounts, shares)
def test_parts_sum_up_and_each_is_within_one_micro_euro(value: int, of: Shares) -> None:
    parts = split(value, of)
    assert parts.region + parts.company + parts.partner == parts.value == value
    for part, share in ((parts.region, of.region), (parts.company, of.company), (parts.partner, of.partner)):
        assert abs(part * 1000 - value * share) < 1000
        assert share or not part


def test_ties_go_to_the_region_and_then_to_the_company() -> None:
    assert split(1, Shares(500, 500, 0)) == Euros(1, 1, 0, 0)
    assert split(1, Shares(0, 500, 500)) == Euros(1, 0, 1, 0)
    assert split(5, Shares(500, 500, 0)) == Euros(5, 3, 2, 0)
    assert split(2, Shares(334, 333, 333)) == Euros(2, 1, 1, 0)
    assert split(10, Shares(10, 490, 500)) == Euros(10, 0, 5, 5), "the largest remainder first"


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), amounts, shares)
def test_refunds_of_a_whole_job_give_its_value_back_exactly(steps: list[int], value: int, of: Shares) -> None:
    """In whatever steps the credits come back, the last one brings what is left, and no part ever goes below zero."""
    total, back, charge, refunded = split(value, of), NOTHING, sum(steps), 0
    for step in steps:
        part = part_of(total, back, step, charge - refunded, refunded)
        assert min(part.value, part.region, part.company, part.partner) >= 0
        back, refunded = added([back, part]), refunded + step
        assert back.value <= total.value
    assert back == total


def test_taking_refunds_back_is_in_proportion_to_what_they_were_worth() -> None:
    back = Euros(100, 50, 30, 20)
    assert part_of(Euros(80, 40, 24, 16), back, -2, 0, 10) == Euros(-20, -10, -6, -4)


def test_no_more_euros_come_back_than_an_adjusted_job_is_worth() -> None:
    assert part_of(Euros(10, 10, 0, 0), Euros(50, 50, 0, 0), 5, 5, 10) == NOTHING
    assert part_of(Euros(10, 10, 0, 0), NOTHING, 5, 0, 5) == Euros(10, 10, 0, 0)


@given(amounts, shares, shares)
def test_a_value_is_divided_like_any_parts(value: int, of: Shares, others: Shares) -> None:
    parts = (of.region + others.region, of.company + others.company, of.partner + others.partner)
    divided = divide(value, parts)
    assert divided.region + divided.company + divided.partner == value
