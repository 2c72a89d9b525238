"""A restore that says so in the chain, on both engines."""

from datetime import timedelta

import pytest
from books import BEGAN_AT, run_jobs, write_books
from sqlmodel import select

from quotas.audit import Audit, Link, transfer_lines
from quotas.errors import NothingLost
from quotas.models import Restore, Transfer
from quotas.restores import all_lost, record_restore
from storage.database import Database


def hash_of(database: Database, sequence: int) -> str:
    with database.snapshot() as connection:
        return [line[:64].decode() for line in transfer_lines(connection)][sequence - 1]


def test_a_restore_names_what_was_lost_and_moves_nothing(database: Database) -> None:
    award_id = write_books(database)
    lost = Link(14, "ab" * 32)
    with database.write() as session:
        written = record_restore(session, "the disk was lost", lost, BEGAN_AT)
    assert written == Link(10, hash_of(database, 10))
    with database.write() as session:
        record_restore(session, "again", None, BEGAN_AT)
    run_jobs(database, award_id, 4, 5)
    with database.snapshot() as connection:
        assert list(Audit(connection).faults()) == []
    with database.read() as session:
        rows = session.exec(select(Transfer).where(Transfer.kind == "restore").order_by(Transfer.id)).all()
        assert [(row.id, row.amount) for row in rows] == [("restore/1", 0), ("restore/2", 0)]
        assert [row.details for row in rows] == [f"lost_sequence=14;lost_hash={lost.hash}", None]
        assert session.exec(select(Restore.reason).order_by(Restore.transfer_id)).all() == [
            "the disk was lost",
            "again",
        ]


def test_only_what_was_signed_before_a_restore_and_lies_within_it_was_lost(database: Database) -> None:
    write_books(database)
    last = Link(14, "ab" * 32)
    with database.write() as session:
        record_restore(session, "the disk was lost", last, BEGAN_AT)
        record_restore(session, "again", None, BEGAN_AT)
    with database.snapshot() as connection:
        [lost] = all_lost(connection)
    before = BEGAN_AT - timedelta(minutes=1)
    assert lost.accounts_for(last, before)
    assert lost.accounts_for(Link(10, "cd" * 32), before)
    assert not lost.accounts_for(Link(14, "cd" * 32), before), "another row than the one that was named"
    assert not lost.accounts_for(Link(9, "cd" * 32), before), "the backup has it"
    assert not lost.accounts_for(Link(15, "cd" * 32), before), "nobody knew of it"
    assert not lost.accounts_for(Link(12, "cd" * 32), BEGAN_AT), "it was signed after the restore"


@pytest.mark.parametrize(
    ("own", "said"), [(True, "was lost: the chain has it"), (False, "not the one that was signed")]
)
def test_what_the_chain_has_was_not_lost(database: Database, own: bool, said: str) -> None:
    write_books(database)
    lost = Link(9, hash_of(database, 9) if own else "f" * 64)
    with pytest.raises(NothingLost, match=said), database.write() as session:
        record_restore(session, "the disk was lost", lost, BEGAN_AT)
