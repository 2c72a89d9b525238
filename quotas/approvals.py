"""Four eyes: who approved something that several people must, each of them once."""

from collections.abc import Iterable
from datetime import datetime

from sqlmodel import Session, col, delete, select

from quotas.errors import ApprovedAlready
from quotas.models import Approval


def approve(session: Session, subject_id: str, person_id: str, at: datetime) -> int:
    """Record a person's approval of an award, a change or a refund; return how many people approved it by now.

    The caller holds the lock under which it decides what the number is enough for.

    Raises:
        ApprovedAlready: this person approved it before; nothing was written.
    """
    given = approvers(session, subject_id)
    if person_id in given:
        raise ApprovedAlready(
            f"you have approved {subject_id} already, and one person counts once",
            "another manager of the Region must approve it",
        )
    session.add(Approval(subject_id=subject_id, person_id=person_id, at=at))
    session.flush()
    return len(given) + 1


def approvers(session: Session, subject_id: str) -> list[str]:
    """Return the ids of those who approved something, first to last."""
    wanted = select(Approval.person_id).where(col(Approval.subject_id) == subject_id)
    return list(session.exec(wanted.order_by(col(Approval.at), col(Approval.person_id))))


def approvers_of(session: Session, subject_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return the ids of those who approved, by what they approved; nothing for what nobody did."""
    wanted = select(Approval).where(col(Approval.subject_id).in_(list(subject_ids)))
    found: dict[str, list[str]] = {}
    for row in session.exec(wanted.order_by(col(Approval.at), col(Approval.person_id))):
        found.setdefault(row.subject_id, []).append(row.person_id)
    return found


def forget(session: Session, subject_id: str) -> None:
    """Take back what was approved, since the thing itself was changed; what happened stays in its events."""
    session.exec(delete(Approval).where(col(Approval.subject_id) == subject_id))
