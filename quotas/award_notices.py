"""What an award's people should know of its dates, in sentences. Pure."""

from datetime import date, datetime, timedelta

from quotas.amounts import PARIS, days_later
from quotas.award_life import AwardState, storage_dates


def notices_of(
    state: AwardState, start_at: datetime, end_at: datetime, expiring_days: int, export_days: int, now: datetime
) -> list[str]:
    """Return sentences on an award's end: from so many days before it until its data is gone."""
    until = storage_dates(end_at, export_days).export_until
    ended = state in (AwardState.EXPIRING, AwardState.CLOSED) or (state is AwardState.ACTIVE and end_at <= now)
    if ended:
        return [f"it has ended; its data may be exported until {_last_day(until)}"] if now < until else []
    if state is not AwardState.ACTIVE or now < max(start_at, days_later(end_at, -expiring_days)):
        return []
    days = (_last_day(end_at) - now.astimezone(PARIS).date()).days
    when = {0: "today", 1: "tomorrow"}.get(days, f"in {days} days")
    return [
        f"it ends {when}, with {_last_day(end_at)}; from then its data is read-only, "
        f"and may be exported until {_last_day(until)}"
    ]


def _last_day(end_at: datetime) -> date:
    """Return the last day in Paris before a moment that is excluded."""
    return (end_at - timedelta(microseconds=1)).astimezone(PARIS).date()
