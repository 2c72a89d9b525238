"""A backup that was played back says so in the chain, with the last transfer that something outside still knows."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Table, func, select
from sqlmodel import Session

from quotas.audit import Link
from quotas.errors import NothingLost, QuotaError
from quotas.ledger import TREASURY, Movement, Posting, post
from quotas.models import ChainHead, Restore, Transfer

RESTORED = "treasury:restored"
_head: Table = ChainHead.__table__  # type: ignore[attr-defined]
_restores: Table = Restore.__table__  # type: ignore[attr-defined]
_transfers: Table = Transfer.__table__  # type: ignore[attr-defined]


def record_restore(session: Session, reason: str, lost: Link | None, at: datetime) -> Link:
    """Write a transfer of nothing that says that a backup was played back, and return it.

    `lost` is the last transfer known outside that the backup does not have; all between it and the backup's
    last one is lost, and the chain goes on from the backup.

    Raises:
        NothingLost: the chain reaches as far as `lost`.
    """
    head = session.execute(select(_head.c.sequence).with_for_update()).scalar_one()
    if lost is not None and lost.sequence <= head:
        raise _nothing_lost(session, lost)
    number = session.execute(select(func.count()).select_from(_restores)).scalar_one() + 1
    id_ = f"restore/{number}"
    details = None if lost is None else f"lost_sequence={lost.sequence};lost_hash={lost.hash}"
    movement = Movement(id_, "restore", TREASURY, RESTORED, 0, str(number), details)
    rows = ((_restores, {"transfer_id": id_, "reason": reason, "at": at}),)
    post(session.connection(), [Posting(movements=(movement,), rows=rows)], at)
    written = session.execute(select(_head.c.sequence, _head.c.hash)).one()
    return Link(written.sequence, written.hash)


@dataclass(frozen=True, slots=True)
class Lost:
    """Transfers that a backup did not have when it was played back."""

    first: int
    last: Link
    at: datetime
    """When the backup was played back."""

    def accounts_for(self, link: Link, at: datetime) -> bool:
        """Say whether a link that was signed at a moment is one of those lost."""
        known = link.sequence < self.last.sequence or link == self.last
        return self.first <= link.sequence <= self.last.sequence and at < self.at and known


def all_lost(connection: Connection) -> list[Lost]:
    """Return what each restore says was lost."""
    wanted = select(_transfers.c.sequence, _transfers.c.details, _transfers.c.at).join(
        _restores, _restores.c.transfer_id == _transfers.c.id
    )
    rows = connection.execute(wanted.where(_transfers.c.details.is_not(None)).order_by(_transfers.c.sequence))
    return [Lost(row.sequence, _last_of(row.details), row.at) for row in rows]


def _last_of(details: str) -> Link:
    said = dict(pair.split("=", 1) for pair in details.split(";"))
    return Link(int(said["lost_sequence"]), said["lost_hash"])


def _nothing_lost(session: Session, lost: Link) -> QuotaError:
    wanted = select(_transfers.c.hash).where(_transfers.c.sequence == lost.sequence)
    if session.execute(wanted).scalar_one_or_none() == lost.hash:
        return NothingLost(
            f"nothing up to transfer {lost.sequence} was lost: the chain has it as it was signed",
            "give the newest checkpoint that the chain does not have, or none",
        )
    return NothingLost(
        f"the chain has a transfer {lost.sequence} that is not the one that was signed: no restore explains that",
        "run `idf-compute-broker audit`",
    )
