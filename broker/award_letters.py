"""What leads and managers are told about an award, in words: subject and text. Pure."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from quotas.amounts import PARIS, hours_text
from quotas.award_life import storage_dates
from quotas.balances import Balances
from quotas.models import Award, ReclaimNotice
from quotas.reclaims import last_day

Words = tuple[str, str]
"""Subject and text."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An award with its project's name."""

    award: Award
    project: str


def spent(subject: Subject, balances: Balances, threshold_thousandths: int) -> Words:
    """Say that so much of an award is spent."""
    share = _percent(threshold_thousandths)
    return (
        f"{subject.project}: {share} of award {subject.award.id} is spent",
        f"{hours_text(balances.consumed)} of {hours_text(balances.total)} normalised GPU-hours are spent, "
        f"{hours_text(balances.held)} are held by open jobs, {hours_text(balances.available)} are available "
        f"until {_last(subject.award.end_at)}, included.\n\n"
        "A lead of the project asks for more with:\n"
        f'  idf-compute award supplement {subject.award.id} HOURS --reason "..."\n',
    )


def ending(subject: Subject, balances: Balances, export_days: int) -> Words:
    """Say when an award ends, and what becomes of its jobs and its data then."""
    dates = storage_dates(subject.award.end_at, export_days)
    return (
        f"{subject.project}: award {subject.award.id} ends with {_last(dates.writable_until)}",
        f"{_last(dates.writable_until)}  the last day: no job starts after it, what is not used goes back\n"
        f"{_day(dates.writable_until)}  data is read-only\n"
        f"{_day(dates.export_from)}  its export begins\n"
        f"{_last(dates.export_until)}  the last day to take data out; then the award is closed\n\n"
        f"{hours_text(balances.available)} normalised GPU-hours are available until then.\n",
    )


def announced(subject: Subject, notice: ReclaimNotice) -> Words:
    """Say that an award lies unused, what would go back, and what to do."""
    award = subject.award
    return (
        f"{subject.project}: {hours_text(notice.announced_credits)} of award {award.id} go back after "
        f"{last_day(notice)}",
        f"More than {_percent(notice.after_thousandths)} of the award's time has gone by and less than "
        f"{_percent(notice.used_below_thousandths)} of it is used or held.\n"
        f"After {last_day(notice)}, {_percent(notice.take_thousandths)} of what is available then goes back to the "
        f"programme, at most {hours_text(notice.announced_credits)} normalised GPU-hours. It does not if the award is "
        "used until then.\n\n"
        "If there is a reason to wait, a lead of the project says so until that day, and a manager decides:\n"
        f'  idf-compute award justify {award.id} "..."\n',
    )


def justified(subject: Subject, notice: ReclaimNotice) -> Words:
    """Say to the managers that a justification waits for a decision."""
    award_id = subject.award.id
    return (
        f"{subject.project}: a justification for award {award_id} waits for a decision",
        f"{hours_text(notice.announced_credits)} normalised GPU-hours would go back after {last_day(notice)}. "
        f"A lead of the project says:\n\n{notice.justification}\n\n"
        "Nothing goes back before a manager has decided:\n"
        f'  idf-compute award accept-justification {award_id} --reason "..."\n'
        f'  idf-compute award refuse-justification {award_id} --reason "..."\n',
    )


def decided(subject: Subject, notice: ReclaimNotice) -> Words:
    """Say to the leads what a manager decided."""
    follows = (
        "Everything stays with the award."
        if notice.decision == "accepted"
        else f"After {last_day(notice)}, up to {hours_text(notice.announced_credits)} go back unless they are used."
    )
    return (
        f"{subject.project}: the justification for award {subject.award.id} is {notice.decision}",
        f"A manager says: {notice.decision_reason}\n\n{follows}\n",
    )


def ended(subject: Subject, notice: ReclaimNotice) -> Words:
    """Say that a reclaim was carried out, or called off."""
    award_id = subject.award.id
    if notice.reclaimed_credits is None:
        return (
            f"{subject.project}: the reclaim from award {award_id} is called off",
            f"Nothing goes back: {notice.outcome_reason}.\n",
        )
    amount = hours_text(notice.reclaimed_credits)
    return (
        f"{subject.project}: {amount} of award {award_id} went back",
        f"{amount} normalised GPU-hours went back to the programme, as announced on {_day(notice.noticed_at)}: "
        f"{notice.outcome_reason}.\n",
    )


def _percent(thousandths: int) -> str:
    whole, rest = divmod(thousandths, 10)
    return f"{whole}.{rest} %" if rest else f"{whole} %"


def _day(at: datetime) -> date:
    return at.astimezone(PARIS).date()


def _last(end_at: datetime) -> date:
    return _day(end_at - timedelta(microseconds=1))
