"""The life of an award: its states, the moves between them, and what dates mean. Pure: nothing is read or written.

requested ─▶ in_review ─▶ active ─▶ expiring ─▶ closed
        └───────┴──▶ refused | withdrawn
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from quotas.amounts import days_later
from quotas.errors import AwardStateWrong


class AwardState(StrEnum):
    """One word per state, everywhere (docs/glossary.md)."""

    REQUESTED = "requested"
    IN_REVIEW = "in_review"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    ACTIVE = "active"
    """Granted; its start may lie ahead."""
    EXPIRING = "expiring"
    """Its end has passed or it was closed early: no job starts, what is left goes back, data is exported."""
    CLOSED = "closed"


class ChangeKind(StrEnum):
    """What may be asked of a granted award."""

    SUPPLEMENT = "supplement"
    EXTENSION = "extension"
    TRANSFER = "transfer"
    CLOSURE = "closure"


class ChangeState(StrEnum):
    """How far a change is."""

    REQUESTED = "requested"
    IN_REVIEW = "in_review"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    GRANTED = "granted"


class Worked(StrEnum):
    """Whether a proof of concept worked."""

    YES = "yes"
    NO = "no"
    PARTLY = "partly"


class InProduction(StrEnum):
    """Whether what was tried is in production."""

    YES = "yes"
    NO = "no"
    PLANNED = "planned"


class StoragePhase(StrEnum):
    """What may be done with an award's data, by date."""

    WRITABLE = "writable"
    READ_ONLY = "read_only"
    EXPORT = "export"
    CLOSED = "closed"


SETTLING_DAYS = 1
"""For which data is only read after an award's end, before its export begins."""

UNDECIDED = frozenset({AwardState.REQUESTED, AwardState.IN_REVIEW})
GRANTED = frozenset({AwardState.ACTIVE, AwardState.EXPIRING, AwardState.CLOSED})

_MOVES: dict[AwardState, frozenset[AwardState]] = {
    # In review: somebody commented on it, or approved it where two must.
    AwardState.REQUESTED: frozenset(
        {AwardState.IN_REVIEW, AwardState.REFUSED, AwardState.WITHDRAWN, AwardState.ACTIVE}
    ),
    AwardState.IN_REVIEW: frozenset({AwardState.REFUSED, AwardState.WITHDRAWN, AwardState.ACTIVE}),
    AwardState.REFUSED: frozenset(),
    AwardState.WITHDRAWN: frozenset(),
    AwardState.ACTIVE: frozenset({AwardState.EXPIRING}),
    AwardState.EXPIRING: frozenset({AwardState.CLOSED}),
    AwardState.CLOSED: frozenset(),
}
_WORDS = {
    AwardState.REQUESTED: "is not decided yet",
    AwardState.IN_REVIEW: "is not decided yet",
    AwardState.REFUSED: "was refused",
    AwardState.WITHDRAWN: "was withdrawn",
    AwardState.ACTIVE: "is granted",
    AwardState.EXPIRING: "has ended",
    AwardState.CLOSED: "is closed",
}


def is_legal(before: AwardState, after: AwardState) -> bool:
    """Say whether an award may go from one state to another in a single move."""
    return after in _MOVES[before]


def check_move(award_id: str, before: AwardState, after: AwardState) -> None:
    """Refuse a move that the life of an award does not have.

    Raises:
        AwardStateWrong: says how it stands.
    """
    if not is_legal(before, after):
        raise state_wrong(award_id, before, "approved" if after is AwardState.ACTIVE else after.replace("_", " "))


def state_wrong(award_id: str, state: AwardState, wanted: str) -> AwardStateWrong:
    """Say that an award stands in a state in which something is not possible."""
    return AwardStateWrong(
        f"award {award_id} {_WORDS[state]}: it cannot be {wanted}",
        f"`idf-compute award show {award_id}` tells its story",
    )


@dataclass(frozen=True, slots=True)
class StorageDates:
    """Until when an award's data may be written, and until when it may be taken out."""

    writable_until: datetime
    export_from: datetime
    export_until: datetime


def storage_dates(end_at: datetime, export_days: int) -> StorageDates:
    """Return the dates of an award's data, which follow from its end and its programme's days for export.

    On the day after the end it is read-only and nothing else, while the last jobs settle; from then it is
    exported, until so many days after the end: days of the calendar in Paris, of 23 to 25 hours.
    """
    export_until = days_later(end_at, export_days)
    return StorageDates(end_at, min(days_later(end_at, SETTLING_DAYS), export_until), export_until)


def storage_phase(end_at: datetime, export_days: int, at: datetime) -> StoragePhase:
    """Return what may be done at a moment with the data of an award that ends, or ended, at another."""
    dates = storage_dates(end_at, export_days)
    if at < dates.writable_until:
        return StoragePhase.WRITABLE
    if at < dates.export_from:
        return StoragePhase.READ_ONLY
    return StoragePhase.EXPORT if at < dates.export_until else StoragePhase.CLOSED
