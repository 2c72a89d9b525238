"""How fast an award is used, when its budget runs out, and what cannot be burnt before its end.

Pure: nothing is read or written. What is not known is None with a reason in words; nothing is clamped.
Days are those of Europe/Paris; credits and seconds are integers, rounded down.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from quotas.amounts import PARIS, credits_of, day_start
from quotas.balances import Balances

WINDOW_DAYS = 14
"""The burn rate is that of so many days, today's part included, or since the award's start when that is shorter."""
DAY_S = 86_400
UNBURNT_THOUSANDTHS = 100
"""An award is at risk when more than a tenth of it would be left at its end."""


class Risk(StrEnum):
    """Why somebody should look at an award."""

    RUNS_OUT = "runs_out"
    """At the present rate it is spent before its end."""
    UNBURNT = "unburnt"
    """At the present rate more than `UNBURNT_THOUSANDTHS` of it are left at its end."""
    UNBURNABLE = "unburnable"
    """Even with all the GPUs that its ceiling lets run at once, some of it is left at its end."""
    UNUSED = "unused"
    """It began at least `WINDOW_DAYS` ago, and nothing was ever charged or held."""


@dataclass(frozen=True, slots=True)
class Use:
    """What is known of an award's use at a moment."""

    start_at: datetime
    end_at: datetime
    balances: Balances
    charged_by_day: Mapping[date, int]
    """Credits charged less those given back, by day; days before the window do not count."""
    gpus_running_max: int | None = None
    """Its ceiling of GPUs at once; None: there is none."""
    weight_thousandths: int | None = None
    """Of the heaviest GPU class that there is; None: there is none yet."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of an award, as far as can be said."""

    burn_credits_per_day: int | None
    """At the present rate; None with `burn_unknown`."""
    burn_unknown: str | None
    runs_out_on: date | None
    """The day on which nothing is left at the present rate; None: not before its end, or unknown."""
    left_at_end_credits: int | None
    """Available or held still when it ends, at the present rate; None with `burn_unknown`."""
    burnable_credits: int | None
    """What it could burn at most until its end, at its ceiling, on the heaviest GPUs; None with `ceiling_unknown`."""
    unburnable_credits: int | None
    """What is left whatever happens: available + held beyond `burnable_credits`; None with `ceiling_unknown`."""
    ceiling_unknown: str | None
    risks: tuple[Risk, ...]


@dataclass(frozen=True, slots=True)
class _Rate:
    """So many credits in so many seconds, exactly: a rate per day is rounded only to be shown."""

    credits: int
    seconds: int

    def burnt(self, seconds: int) -> int:
        return self.credits * seconds // self.seconds

    def seconds_for(self, amount: int) -> int | None:
        """Return in how many seconds an amount is gone, rounded up; None: never."""
        return -(-amount * self.seconds // self.credits) if self.credits else None


def window_start(at: datetime) -> datetime:
    """Return when the first day that counts for a burn rate at a moment began."""
    return day_start(at.astimezone(PARIS).date() - timedelta(days=WINDOW_DAYS - 1))


def forecast(use: Use, at: datetime) -> Forecast:
    """Return what becomes of an award, seen from a moment."""
    left = use.balances.available + use.balances.held
    rate = _rate(use, at)
    hard = _burnable(use, at)
    runs_out_on, left_at_end = None, None
    if isinstance(rate, _Rate):
        runs_out_on, left_at_end = _at_rate(rate, left, use.end_at, at)
    burnable = hard if isinstance(hard, int) else None
    unburnable = max(0, left - burnable) if burnable is not None else None
    return Forecast(
        burn_credits_per_day=rate.burnt(DAY_S) if isinstance(rate, _Rate) else None,
        burn_unknown=rate if isinstance(rate, str) else None,
        runs_out_on=runs_out_on,
        left_at_end_credits=left_at_end,
        burnable_credits=burnable,
        unburnable_credits=unburnable,
        ceiling_unknown=hard if isinstance(hard, str) else None,
        risks=tuple(_risks(use, at, runs_out_on, left_at_end, unburnable)),
    )


def _rate(use: Use, at: datetime) -> _Rate | str:
    """Return the burn rate, or why it is not known."""
    if at < use.start_at:
        return f"it begins on {use.start_at.astimezone(PARIS).date()}"
    if at >= use.end_at:
        return "it has ended"
    since = max(window_start(at), use.start_at)
    seconds = _seconds(since, at)
    if seconds < DAY_S:
        return "it began less than a day ago"
    first_day = since.astimezone(PARIS).date()
    charged = sum(amount for day, amount in use.charged_by_day.items() if day >= first_day)
    if not charged and not use.balances.consumed:
        return "nothing has been charged yet"
    if charged < 0:
        return f"more was given back than charged in the last {WINDOW_DAYS} days"
    return _Rate(charged, seconds)


def _at_rate(rate: _Rate, left: int, end_at: datetime, at: datetime) -> tuple[date | None, int]:
    """Return the day on which a budget runs out at a rate, None when it does not before the end, and what is left."""
    until_end = _seconds(at, end_at)
    until_gone = rate.seconds_for(left)
    if until_gone is not None and until_gone < until_end:
        return (at + timedelta(seconds=until_gone)).astimezone(PARIS).date(), 0
    return None, left - min(left, rate.burnt(until_end))


def _burnable(use: Use, at: datetime) -> int | str:
    """Return what can be burnt at most from now to the end, or why it is not known."""
    if use.gpus_running_max is None:
        return "no ceiling of GPUs at once is set"
    if use.weight_thousandths is None:
        return "no GPU class is known"
    seconds = max(0, _seconds(max(at, use.start_at), use.end_at))
    return credits_of(use.gpus_running_max, seconds, use.weight_thousandths)


def _risks(
    use: Use, at: datetime, runs_out_on: date | None, left_at_end: int | None, unburnable: int | None
) -> list[Risk]:
    if at >= use.end_at:
        return []
    unused = use.balances.consumed == use.balances.held == 0
    said = {
        Risk.RUNS_OUT: runs_out_on is not None,
        Risk.UNBURNT: left_at_end is not None and left_at_end * 1000 > use.balances.total * UNBURNT_THOUSANDTHS,
        Risk.UNBURNABLE: bool(unburnable),
        Risk.UNUSED: unused and at >= use.start_at + timedelta(days=WINDOW_DAYS),
    }
    return [risk for risk, holds in said.items() if holds]


def _seconds(start: datetime, end: datetime) -> int:
    return (end - start) // timedelta(seconds=1)
