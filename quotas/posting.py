"""One movement at a time, inside a session: for what people decide, beside the writer's groups."""

from datetime import datetime

from sqlmodel import Session, select

from quotas.errors import QuotaError
from quotas.ledger import Done, Movement, Posting, post
from quotas.models import ChainHead


def lock_books(session: Session) -> None:
    """Wait for whoever moves money, and keep all others from it until this transaction ends.

    The chain's head is the first lock of every transaction that moves money, so that none waits for another
    crosswise; what is read after it stands until the commit.
    """
    session.flush()
    session.exec(select(ChainHead.id).with_for_update()).one()


def move(session: Session, movement: Movement, at: datetime) -> bool:
    """Post one movement; say whether it is new, False for a replay.

    Raises:
        QuotaError: the rule that refuses it; nothing was moved.
    """
    session.flush()
    [outcome] = post(session.connection(), [Posting(movements=(movement,))], at)
    if isinstance(outcome, QuotaError):
        raise outcome
    return outcome is Done.POSTED
