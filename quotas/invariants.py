"""What always holds, as one question: the audit of a session's state."""

from collections.abc import Iterator

from sqlmodel import Session

from quotas.audit import Audit


def broken(session: Session) -> Iterator[str]:
    """Yield a sentence for each rule that does not hold; nothing when the books are right."""
    return Audit(session.connection()).faults()
