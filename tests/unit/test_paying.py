"""Which award pays: pure, so each rule is one line of facts."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.paying import Need, Payer, choose
from quotas.errors import AwardNotActive, AwardTooSmall, AwardUnknown, QuotaError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = 3_600_000


def payer(name: str, *, ends_in_s: int, available: int = 100 * HOUR, begins_in_s: int = -3600) -> Payer:
    return Payer(name, NOW + timedelta(seconds=begins_in_s), NOW + timedelta(seconds=ends_in_s), available)


def need(held: int = HOUR, time_limit_s: int = 3600) -> Need:
    """A job of one GPU and no grace that holds so much."""
    return Need("vision", 1, held // time_limit_s, time_limit_s, 0, NOW)


def test_the_one_that_ends_first_pays() -> None:
    payers = [payer("late", ends_in_s=90_000), payer("soon", ends_in_s=9_000)]
    assert choose(payers, None, need()).award_id == "soon"


def test_ties_go_by_id() -> None:
    payers = [payer("b", ends_in_s=9_000), payer("a", ends_in_s=9_000)]
    assert choose(payers, None, need()).award_id == "a"


def test_one_that_cannot_pay_whole_is_passed_over() -> None:
    payers = [payer("soon", ends_in_s=9_000, available=HOUR - 1), payer("late", ends_in_s=90_000)]
    assert choose(payers, None, need()).award_id == "late"


def test_one_that_ends_before_the_job_is_passed_over() -> None:
    payers = [payer("soon", ends_in_s=3_599), payer("late", ends_in_s=90_000)]
    assert choose(payers, None, need()).award_id == "late"
    assert choose([payer("soon", ends_in_s=3_600)], None, need()).award_id == "soon"


@pytest.mark.parametrize(
    ("payers", "award", "error", "text"),
    [
        ([], None, AwardNotActive, "has no award yet"),
        ([payer("a", ends_in_s=-1)], None, AwardNotActive, "the last ended 2026-06-01 11:59"),
        ([payer("a", ends_in_s=9_000, begins_in_s=60)], None, AwardNotActive, "the next begins 2026-06-01 12:01"),
        ([payer("a", ends_in_s=1_800)], None, AwardNotActive, "30 min before the job's time limit would"),
        ([payer("a", ends_in_s=9_000, available=0)], None, AwardTooSmall, "would hold 1 h .* has 0 h available"),
        ([payer("a", ends_in_s=9_000)], "b", AwardUnknown, "has no award b"),
        ([payer("a", ends_in_s=9_000), payer("b", ends_in_s=-1)], "b", AwardNotActive, "the last ended"),
    ],
)
def test_refusals_say_by_how_much(payers: list[Payer], award: str | None, error: type[QuotaError], text: str) -> None:
    with pytest.raises(error, match=text) as refusal:
        choose(payers, award, need())
    assert refusal.value.remedy
