"""Kept answers to POSTs: how the old ones are forgotten."""

from sqlmodel import Session, col, delete

from broker.models import ANSWERS_KEPT_FOR, Idempotency
from storage.tables import utcnow


def forget_old_answers(session: Session, person_id: str | None = None) -> None:
    """Delete the answers that are older than their 24 hours: one person's, or everybody's."""
    old = delete(Idempotency).where(col(Idempotency.created_at) < utcnow() - ANSWERS_KEPT_FOR)
    session.exec(old if person_id is None else old.where(col(Idempotency.person_id) == person_id))
    session.expire_all()
