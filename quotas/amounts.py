"""Credits, GPU-seconds and hours: integers in, integers out, and the one place that words them."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

CREDITS_PER_HOUR = 3_600_000
"""One normalised GPU-hour: one GPU × 3600 s × 1000 thousandths (docs/glossary.md)."""

PARIS = ZoneInfo("Europe/Paris")


def credits_of(gpus: int, seconds: int, weight_thousandths: int) -> int:
    """Return the credits of so many GPUs for so many seconds: gpus × seconds × weight (docs/rules.md)."""
    if min(gpus, seconds, weight_thousandths) < 0:
        raise ValueError("GPUs, seconds and weights are never negative")
    return gpus * seconds * weight_thousandths


def time_limit_that_fits(available: int, rate_credits_per_s: int, kill_grace_s: int) -> int:
    """Return the longest time limit in whole minutes that so many credits can hold; 0 when not even one minute."""
    return max(0, available // rate_credits_per_s - kill_grace_s) // 60


def hours_text(amount_credits: int) -> str:
    """Word credits as normalised GPU-hours, rounded towards zero to the thousandth: `12.5 h`."""
    sign = "-" if amount_credits < 0 else ""
    thousandths = abs(amount_credits) * 1000 // CREDITS_PER_HOUR
    whole, rest = divmod(thousandths, 1000)
    return f"{sign}{whole}.{rest:03}".rstrip("0").rstrip(".") + " h"


def euros_text(amount_micro_euros: int) -> str:
    """Word micro-euros as euros, exactly: whole euros, cents, or as many digits as there are: `37000 €`, `2.35 €`."""
    sign = "-" if amount_micro_euros < 0 else ""
    whole, rest = divmod(abs(amount_micro_euros), 1_000_000)
    digits = f"{rest:06}".rstrip("0")
    return f"{sign}{whole}.{digits.ljust(2, '0')} €" if digits else f"{sign}{whole} €"


def paris_day(moment: datetime) -> date:
    """Return the calendar day that a moment falls on in Europe/Paris."""
    return moment.astimezone(PARIS).date()


def day_start(day: date) -> datetime:
    """Return the moment at which a calendar day begins in Europe/Paris, in UTC."""
    return datetime.combine(day, time(), PARIS).astimezone(UTC)


def days_later(moment: datetime, days: int) -> datetime:
    """Return the same time of day in Europe/Paris so many calendar days later, or earlier where negative; in UTC."""
    return (moment.astimezone(PARIS) + timedelta(days=days)).astimezone(UTC)


def period(start_on: date, end_on: date) -> tuple[datetime, datetime]:
    """Return [start, end) in UTC of a span of days in Europe/Paris whose last day is included."""
    return day_start(start_on), day_start(end_on + timedelta(days=1))
