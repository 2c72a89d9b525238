"""A programme's policy: what it refuses an award for, word for word, and which policies are none."""

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from quotas.errors import PolicyRefused
from quotas.policy import AwardAsked, ProgrammePolicy, months_after, refusals

HOUR = 3_600_000
PACK_IA = ProgrammePolicy(
    kind="pack-ia",
    shortest_months=3,
    longest_months=6,
    awards_per_year_max=100,
    award_credits_max=2000 * HOUR,
    confidentialities=["public", "internal"],
    natures=["none"],
)


def asked(**changes: Any) -> AwardAsked:
    usual: dict[str, Any] = {
        "credits": 1000 * HOUR,
        "start_on": date(2027, 1, 15),
        "end_on": date(2027, 6, 30),
        "confidentiality": "internal",
        "nature": "none",
    }
    return AwardAsked(**{**usual, **changes})


def refused(policy: ProgrammePolicy, awards_this_year: int = 0, **changes: Any) -> tuple[str, str | None]:
    with pytest.raises(PolicyRefused) as caught:
        refusals(policy, asked(**changes), awards_this_year)
    return caught.value.detail, caught.value.remedy


def test_what_is_within_the_policy_passes() -> None:
    refusals(PACK_IA, asked(), 99)
    refusals(PACK_IA, asked(end_on=date(2027, 4, 14), credits=2000 * HOUR), 0)
    refusals(PACK_IA, asked(end_on=date(2027, 7, 14)), 0)


def test_a_policy_without_bounds_refuses_nothing() -> None:
    free = ProgrammePolicy(natures=["none", "personal", "health"])
    refusals(free, asked(end_on=date(2027, 1, 15), credits=2**53, nature="health"), 10**6)
    refusals(free, asked(end_on=date(2099, 1, 1), confidentiality="confidential"), 0)


def test_an_award_that_is_too_short() -> None:
    assert refused(PACK_IA, end_on=date(2027, 4, 13)) == (
        "an award of this programme lasts at least 3 months, this one would last from 2027-01-15 to 2027-04-13",
        "end it on 2027-04-14 or later",
    )


def test_an_award_that_is_too_long() -> None:
    assert refused(PACK_IA, end_on=date(2027, 7, 15)) == (
        "an award of this programme lasts at most 6 months, this one would last from 2027-01-15 to 2027-07-15",
        "end it on 2027-07-14 or earlier",
    )
    short = ProgrammePolicy(longest_months=1)
    assert "at most 1 month," in refused(short, end_on=date(2027, 2, 15))[0]


def test_an_award_that_is_too_large() -> None:
    assert refused(PACK_IA, credits=2000 * HOUR + 1) == (
        "an award of this programme is at most 2000 h, 2000 h were asked for",
        "award at most 2000 h",
    )
    assert "2000.5 h were asked for" in refused(PACK_IA, credits=2000 * HOUR + HOUR // 2)[0]


def test_data_that_the_programme_does_not_take() -> None:
    assert refused(PACK_IA, confidentiality="confidential") == (
        "this programme takes no data whose confidentiality is confidential",
        "use a project whose data's confidentiality is public or internal, or another programme",
    )
    assert refused(PACK_IA, nature="health") == (
        "this programme takes no data whose nature is health",
        "use a project whose data's nature is none, or another programme",
    )


def test_health_data_must_be_named_by_a_policy() -> None:
    assert "nature is health" in refused(ProgrammePolicy(), nature="health")[0]


def test_a_cohort_that_is_full() -> None:
    assert refused(PACK_IA, awards_this_year=100) == (
        "this programme begins at most 100 awards a year, 100 begin in 2027 already",
        "begin it on 2028-01-01 or later",
    )


@pytest.mark.parametrize(
    ("start_on", "months", "last"),
    [
        (date(2027, 1, 15), 3, date(2027, 4, 14)),
        (date(2027, 1, 1), 12, date(2027, 12, 31)),
        (date(2027, 10, 1), 3, date(2027, 12, 31)),
        (date(2027, 11, 1), 3, date(2028, 1, 31)),
        (date(2027, 1, 31), 1, date(2027, 2, 28)),
        (date(2027, 1, 29), 1, date(2027, 2, 28)),
        (date(2027, 1, 28), 1, date(2027, 2, 27)),
        (date(2028, 1, 31), 1, date(2028, 2, 29)),
        (date(2027, 12, 31), 2, date(2028, 2, 29)),
    ],
)
def test_calendar_months(start_on: date, months: int, last: date) -> None:
    assert months_after(start_on, months) == last


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"shortest_months": 7, "longest_months": 6}, "shortest_months (7) is above longest_months (6)"),
        ({"regime": "exempted"}, "the regime exempted needs scheme, the number of the exempted scheme"),
        (
            {"regime": "de-minimis", "scheme": "SA.1"},
            "scheme belongs to the regime exempted, this programme's is de-minimis",
        ),
        ({"natures": ["none", "none"]}, "natures names a value twice"),
        ({"confidentialities": ["public", "public"]}, "confidentialities names a value twice"),
        ({"images": ["a/b", "a/b"]}, "images names a value twice"),
        ({"images": ["a b"]}, "should match pattern"),
        ({"warn_at_thousandths": [900, 750]}, "warn_at_thousandths must rise from one to the next"),
        (
            {"reclaim": [{"after_thousandths": 500, "used_below_thousandths": 100, "take_thousandths": 500}] * 2},
            "after_thousandths of the reclaim rules must rise from one to the next",
        ),
        ({"full_name": "a\nb"}, "must not hold control characters, such as a newline or an escape"),
        ({"kind": "packia"}, "Input should be 'pack-ia', 'challenge', 'pooled-data', 'training' or 'other'"),
        ({"longest_month": 6}, "Extra inputs are not permitted"),
        ({"natures": []}, "List should have at least 1 item after validation, not 0"),
    ],
)
def test_a_policy_that_is_none(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ProgrammePolicy.model_validate(fields)
    assert sentence in caught.value.errors()[0]["msg"]


def test_a_policy_that_holds_together() -> None:
    rule = {"used_below_thousandths": 250, "take_thousandths": 500}
    policy = ProgrammePolicy.model_validate(
        {
            "regime": "exempted",
            "scheme": "SA.111723",
            "full_name": "Défi « cancérologie »",
            "reclaim": [{"after_thousandths": 500, **rule}, {"after_thousandths": 750, **rule}],
        }
    )
    assert ProgrammePolicy.model_validate(policy.model_dump(mode="json")) == policy
