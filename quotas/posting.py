"""Postings inside a session, where a refusal undoes all: for what people and workers decide, beside the writer."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection
from sqlmodel import Session

from quotas.errors import QuotaError
from quotas.ledger import Done, Movement, Posting, lock_head, post


def lock_books(session: Session) -> None:
    """Wait for whoever moves money, and keep all others from it until this transaction ends.

    The chain's head is the first lock of every transaction that moves money, so that none waits for another
    crosswise; what is read after it stands until the commit.
    """
    session.flush()
    lock_head(session.connection())


def post_all(connection: Connection, postings: Sequence[Posting], at: datetime) -> list[Done]:
    """Post what must stand as a whole.

    Raises:
        QuotaError: the first rule that refuses; the caller's transaction must not stand.
    """
    done: list[Done] = []
    for outcome in post(connection, postings, at):
        if isinstance(outcome, QuotaError):
            raise outcome
        done.append(outcome)
    return done


def move(session: Session, movement: Movement, at: datetime) -> bool:
    """Post one movement; say whether it is new, False for a replay.

    Raises:
        QuotaError: the rule that refuses it; nothing was moved.
    """
    session.flush()
    [done] = post_all(session.connection(), [Posting(movements=(movement,))], at)
    return done is Done.POSTED
