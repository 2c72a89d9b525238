"""What a programme allows: its policy as one value that is checked whole, and what it refuses an award for.

Nothing here touches a database, so that a rule can be read, and tried, alone.
"""

from calendar import monthrange
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Annotated, Literal
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from quotas.amounts import hours_text
from quotas.errors import PolicyRefused

CREDITS_MAX = 2**53
TIME_LIMIT_S_MAX = 30 * 24 * 3600
MONTHS_MAX = 120

Kind = Literal["pack-ia", "challenge", "pooled-data", "training", "other"]
Confidentiality = Literal["public", "internal", "confidential"]
Nature = Literal["none", "personal", "health"]
Regime = Literal["de-minimis", "exempted", "none"]

Months = Annotated[int, Field(ge=1, le=MONTHS_MAX)]
Amount = Annotated[int, Field(gt=0, le=CREDITS_MAX)]
Days = Annotated[int, Field(ge=0, le=366)]
Thousandths = Annotated[int, Field(ge=1, le=1000)]


def _is_plain_text(value: str) -> str:
    if any(category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("must not hold control characters, such as a newline or an escape")
    return value


Words = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_is_plain_text)]
Image = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9/][A-Za-z0-9._:/-]{0,254}(@sha256:[0-9a-f]{64})?$", max_length=330)
]


class ReclaimRule(BaseModel):
    """Once a share of an award's time has gone by, and less than a share of it is used, a share is taken back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after_thousandths: Annotated[int, Field(ge=1, le=999)]
    """Of the award's time."""
    used_below_thousandths: Thousandths
    """Of the awarded credits: the rule holds while less than this is consumed or held."""
    take_thousandths: Thousandths
    """Of what is available then."""


class ProgrammePolicy(BaseModel):
    """The rules of a programme. What is None sets no bound.

    Raises:
        ValueError: a value is out of its range, unknown, or at odds with another one.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind = "other"
    full_name: Words | None = None
    default_time_limit_s: Annotated[int, Field(ge=60, le=TIME_LIMIT_S_MAX)] = 3600
    """A job's time limit if it names none."""
    shortest_months: Months | None = None
    """Calendar months in Paris: three months from 15 January end with 14 April, included."""
    longest_months: Months | None = None
    awards_per_year_max: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The cohort: how many awards may begin in one calendar year."""
    award_credits_max: Amount | None = None
    confidentialities: Annotated[list[Confidentiality], Field(min_length=1)] = ["public", "internal", "confidential"]
    natures: Annotated[list[Nature], Field(min_length=1)] = ["none", "personal"]
    """Health data must be named by the policy: only certified services may hold it."""
    regime: Regime = "none"
    scheme: Words | None = None
    """The number of an exempted scheme."""
    four_eyes_above_credits: Annotated[int, Field(ge=0, le=CREDITS_MAX)] | None = None
    """An award above this needs two people; None: never."""
    warn_at_thousandths: Annotated[list[Thousandths], Field(max_length=20)] = [750, 900]
    """Of an award spent."""
    reclaim: Annotated[list[ReclaimRule], Field(max_length=20)] = []
    notice_days: Days = 15
    """Between the notice that an award lies unused and the reclaim."""
    expiring_days: Days = 30
    """The end of an award is shown and warned of this long before."""
    export_days: Days = 30
    """After its end, data may still be taken out this long."""
    free_hours_first: bool = False
    """Allocated capacity (GENCI, EuroHPC) is used before purchased capacity."""
    images: Annotated[list[Image], Field(max_length=200)] | None = None
    """Images that jobs may name: a reference with its digest, or a repository for all its digests. None: any that the
    site takes. What the site or its named environments choose is not asked about."""

    @model_validator(mode="after")
    def _holds_together(self) -> "ProgrammePolicy":
        if self.shortest_months and self.longest_months and self.shortest_months > self.longest_months:
            raise ValueError(
                f"shortest_months ({self.shortest_months}) is above longest_months ({self.longest_months})"
            )
        if self.regime == "exempted" and self.scheme is None:
            raise ValueError("the regime exempted needs scheme, the number of the exempted scheme")
        if self.regime != "exempted" and self.scheme is not None:
            raise ValueError(f"scheme belongs to the regime exempted, this programme's is {self.regime}")
        _once("confidentialities", self.confidentialities)
        _once("natures", self.natures)
        _once("images", self.images or [])
        _rising("warn_at_thousandths", self.warn_at_thousandths)
        _rising("after_thousandths of the reclaim rules", [rule.after_thousandths for rule in self.reclaim])
        return self


def _once(name: str, values: Sequence[str]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{name} names a value twice")


def _rising(name: str, values: Sequence[int]) -> None:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ValueError(f"{name} must rise from one to the next")


@dataclass(frozen=True, slots=True)
class AwardAsked:
    """An award as a programme's policy sees it: days in Paris, the last one included, and the project's data class."""

    credits: int
    start_on: date
    end_on: date
    confidentiality: str
    nature: str


def refusals(policy: ProgrammePolicy, asked: AwardAsked, awards_this_year: int) -> None:
    """Check an award against a programme's policy.

    `awards_this_year` is how many awards of the programme begin in the calendar year of `asked.start_on`
    (Paris) without this one.

    Raises:
        PolicyRefused: the first rule that refuses it, and what would pass.
    """
    for refusal in all_refusals(policy, asked, awards_this_year):
        raise refusal


def all_refusals(policy: ProgrammePolicy, asked: AwardAsked, awards_this_year: int) -> Iterator[PolicyRefused]:
    """Yield every rule that refuses an award, for those who must put many of them right at once."""
    checks: tuple[Callable[[], None], ...] = (
        lambda: check_length(policy, asked.start_on, asked.end_on),
        lambda: check_amount(policy, asked.credits),
        lambda: _check_data_class(policy, asked),
        lambda: _check_cohort(policy, asked, awards_this_year),
    )
    for check in checks:
        try:
            check()
        except PolicyRefused as refusal:
            yield refusal


def months_after(start_on: date, months: int) -> date:
    """Return the last day, included, of so many calendar months: 3 months from 15 January end with 14 April.

    Where the last month has no such day, its last day counts: 1 month from 31 January ends with 28 February.
    """
    year, month = divmod(start_on.year * 12 + start_on.month - 1 + months, 12)
    last = monthrange(year, month + 1)[1]
    if start_on.day > last:
        return date(year, month + 1, last)
    return date(year, month + 1, start_on.day) - timedelta(days=1)


def check_length(policy: ProgrammePolicy, start_on: date, end_on: date) -> None:
    """Refuse an award that is too short or too long; its last day is included.

    Raises:
        PolicyRefused: says which day would pass.
    """
    if policy.shortest_months is not None:
        earliest = months_after(start_on, policy.shortest_months)
        if end_on < earliest:
            raise PolicyRefused(
                f"an award of this programme lasts at least {_months(policy.shortest_months)}, "
                f"this one would last from {start_on} to {end_on}",
                remedy=f"end it on {earliest} or later",
            )
    if policy.longest_months is not None:
        latest = months_after(start_on, policy.longest_months)
        if end_on > latest:
            raise PolicyRefused(
                f"an award of this programme lasts at most {_months(policy.longest_months)}, "
                f"this one would last from {start_on} to {end_on}",
                remedy=f"end it on {latest} or earlier",
            )


def check_amount(policy: ProgrammePolicy, amount_credits: int) -> None:
    """Refuse an award that is too large.

    Raises:
        PolicyRefused: says how much would pass.
    """
    most = policy.award_credits_max
    if most is not None and amount_credits > most:
        raise PolicyRefused(
            f"an award of this programme is at most {hours_text(most)}, {hours_text(amount_credits)} were asked for",
            remedy=f"award at most {hours_text(most)}",
        )


def _check_data_class(policy: ProgrammePolicy, asked: AwardAsked) -> None:
    for what, value, allowed in (
        ("confidentiality", asked.confidentiality, policy.confidentialities),
        ("nature", asked.nature, policy.natures),
    ):
        if value not in allowed:
            raise PolicyRefused(
                f"this programme takes no data whose {what} is {value}",
                remedy=f"use a project whose data's {what} is {' or '.join(allowed)}, or another programme",
            )


def _check_cohort(policy: ProgrammePolicy, asked: AwardAsked, awards_this_year: int) -> None:
    most = policy.awards_per_year_max
    if most is not None and awards_this_year >= most:
        year = asked.start_on.year
        raise PolicyRefused(
            f"this programme begins at most {most} awards a year, {awards_this_year} begin in {year} already",
            remedy=f"begin it on {year + 1}-01-01 or later",
        )


def _months(number: int) -> str:
    return f"{number} month{'s' if number > 1 else ''}"
