"""The audit, on both engines: books that are right, each kind of tampering, and a database that breaks off."""

from itertools import islice

import pytest
from books import HOUR, move, write_books
from sqlalchemy import text

from quotas.audit import Audit, Link, faults_of_link, transfer_lines
from quotas.holds import Side, open_hold
from storage.database import Database, DatabaseUnavailable


def faults(database: Database, **options: object) -> list[str]:
    with database.snapshot() as connection:
        return list(Audit(connection, **options).faults())  # type: ignore[arg-type]


def tamper(database: Database, *statements: str) -> None:
    """Change rows as a database's owner can: without the rules that the tables have."""
    with database.engine.connect() as connection:
        if database.is_sqlite:
            for pragma in ("foreign_keys = OFF", "ignore_check_constraints = ON"):
                connection.connection.driver_connection.execute(f"PRAGMA {pragma}")  # type: ignore[union-attr]
        else:
            connection.execute(text("SET session_replication_role = replica"))
            for table, check in (("ledger_account", "not_below_zero"), ("hold", "remaining_within_amount")):
                connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_{check}"))
        for statement in statements:
            connection.execute(text(statement))
        connection.commit()


def test_right_books_have_no_faults_and_are_counted(database: Database) -> None:
    write_books(database)
    told: list[int] = []
    with database.snapshot() as connection:
        books = Audit(connection, tell=told.append)
        assert list(books.faults()) == []
        assert (books.transfers, books.accounts, books.last.sequence) == (9, 8, 9)
        assert told == [9]
        assert len(list(transfer_lines(connection))) == 9


def test_an_empty_ledger_is_right(database: Database) -> None:
    assert faults(database) == []


SWAP = (
    "UPDATE ledger_transfer SET sequence = 99 WHERE sequence = 4",
    "UPDATE ledger_transfer SET sequence = 4 WHERE sequence = 5",
    "UPDATE ledger_transfer SET sequence = 5 WHERE sequence = 99",
)


@pytest.mark.parametrize(
    ("statements", "first"),
    [
        (("UPDATE ledger_transfer SET amount = amount + 1 WHERE sequence = 4",), "transfer 4: its hash does not"),
        (("UPDATE ledger_transfer SET details = 'region=1000' WHERE sequence = 4",), "transfer 4: its hash does not"),
        (("UPDATE ledger_transfer SET details = NULL WHERE sequence = 4",), "transfer 4: its hash does not"),
        (("UPDATE ledger_transfer SET at = at + 1 WHERE sequence = 4",), "transfer 4: its hash does not"),
        (("UPDATE ledger_transfer SET kind = 'hold|x' WHERE sequence = 4",), "transfer 4: its hash does not"),
        (("DELETE FROM ledger_transfer WHERE sequence = 4",), "transfer 5: its hash does not"),
        (("DELETE FROM ledger_transfer WHERE sequence = 9",), "the head names transfer 9"),
        (SWAP, "transfer 4: its hash does not"),
        (("UPDATE ledger_head SET sequence = 8",), "the head names transfer 8"),
        (("DELETE FROM ledger_head",), "the chain's head is missing"),
        (("UPDATE ledger_account SET balance = balance + 1 WHERE kind = 'consumed'",), "account consumed:"),
        (("UPDATE ledger_account SET kind = 'treasury' WHERE kind = 'available'",), "account available:"),
        (("UPDATE ledger_account SET balance = -5 WHERE kind = 'available'",), "account available:"),
        (("DELETE FROM ledger_account WHERE kind = 'consumed'",), "account consumed:"),
        (
            ("UPDATE hold SET remaining = remaining - 1 WHERE id = 'job-3'",),
            "hold job-3: 36000000 were set aside and 1 ",
        ),
        (("UPDATE hold SET amount = amount + 1 WHERE id = 'job-1'",), "hold job-1: 36000001 were set aside"),
        (("UPDATE hold SET award_id = 'awd-other' WHERE id = 'job-3'",), "hold job-3: "),
        (("DELETE FROM hold WHERE id = 'job-3'",), "hold job-3: 0 were set aside"),
        (("UPDATE award SET awarded_credits = awarded_credits + 1",), "award awd-"),
    ],
)
def test_tampering_is_found_and_the_first_broken_row_named(
    database: Database, statements: tuple[str, ...], first: str
) -> None:
    write_books(database)
    tamper(database, *statements)
    assert faults(database)[0].startswith(first), faults(database)


def test_two_holds_changed_so_that_their_sum_stays_are_both_named(database: Database) -> None:
    write_books(database)
    tamper(
        database,
        "UPDATE hold SET amount = amount + 1 WHERE id = 'job-1'",
        "UPDATE hold SET amount = amount - 1 WHERE id = 'job-2'",
    )
    assert [fault.split(":")[0] for fault in faults(database)] == ["hold job-1", "hold job-2"]


def test_a_gap_of_many_rows_and_a_negative_balance_are_said(database: Database) -> None:
    write_books(database)
    tamper(database, "DELETE FROM ledger_transfer WHERE sequence IN (2, 3)")
    found = faults(database)
    assert "transfer 2: a row is missing, and all up to 3" in found
    assert any("transfer 4: it takes account held:" in fault and "below zero" in fault for fault in found)


def test_an_account_is_named_once_where_it_goes_below_zero(database: Database) -> None:
    award_id = write_books(database)
    tamper(database, "UPDATE ledger_transfer SET amount = 1 WHERE sequence = 2")
    assert len([fault for fault in faults(database) if f"takes account available:{award_id}" in fault]) == 1


def test_a_balance_below_zero_that_the_transfers_say_too(database: Database) -> None:
    write_books(database)
    tamper(database, "UPDATE ledger_account SET balance = -7 WHERE kind = 'held'")
    assert any(fault.endswith("-7 is below zero") for fault in faults(database))


@pytest.mark.parametrize("column", ["debit_id", "id"])
def test_columns_that_do_not_read_as_a_transfer(database: Database, column: str) -> None:
    write_books(database)
    tamper(database, f"UPDATE ledger_transfer SET {column} = 'a|b' WHERE sequence = 4")
    assert any(fault == "transfer 4: its columns do not read as a transfer's" for fault in faults(database))


def test_text_that_would_act_on_a_terminal_is_made_visible(database: Database) -> None:
    write_books(database)
    tamper(database, "UPDATE ledger_account SET owner_id = 'x\x1b[2J' WHERE kind = 'consumed'")
    assert "\x1b" not in "".join(faults(database))


def test_from_a_checkpoint_only_the_rows_after_it_are_read(database: Database) -> None:
    write_books(database)
    with database.snapshot() as connection:
        hashes = [line[:64].decode() for line in transfer_lines(connection)]
        books = Audit(connection, since=Link(5, hashes[4]))
        assert (list(books.faults()), books.transfers, books.last) == ([], 4, Link(9, hashes[8]))
    tamper(database, "UPDATE ledger_transfer SET amount = amount + 1 WHERE sequence = 3")
    assert faults(database, since=Link(5, hashes[4])) == [], "rows before the checkpoint are not read"
    tamper(database, "UPDATE ledger_transfer SET amount = amount + 1 WHERE sequence = 7")
    assert faults(database, since=Link(5, hashes[4])) == ["transfer 7: its hash does not follow from the row before it"]
    assert faults(database, since=Link(5, "f" * 64))[0] == "transfer 5: its hash is not the one that was signed"
    assert (
        faults(database, since=Link(12, hashes[4]))[0] == "transfer 12: the row is missing, a checkpoint has its hash"
    )
    with database.snapshot() as connection:
        assert list(faults_of_link(connection, Link(9, hashes[8]))) == []


def test_an_audit_that_is_left_in_the_middle_leaves_the_connection_usable(database: Database) -> None:
    write_books(database)
    with database.snapshot() as connection:
        lines = transfer_lines(connection)
        assert len(list(islice(lines, 2))) == 2
        lines.close()  # type: ignore[attr-defined]
    assert faults(database) == []


def test_an_audit_sees_one_state_while_others_write(database: Database) -> None:
    award_id = write_books(database)
    with database.snapshot() as connection:
        assert list(Audit(connection).faults()) == []
        move(database, open_hold("job-more", Side(award_id, HOUR, 1000), None))
        books = Audit(connection)
        assert (list(books.faults()), books.transfers) == ([], 9)
    with database.snapshot() as connection:
        books = Audit(connection)
        assert (list(books.faults()), books.transfers) == ([], 10)


@pytest.mark.postgres
def test_a_server_that_refuses_or_goes_away_is_one_sentence(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no server")
    write_books(database)
    for broken in ("no_such_column", "0 AND 1 / (5 - sequence) < 2"):
        with pytest.raises(DatabaseUnavailable, match="broke off"), database.snapshot() as connection:
            list(transfer_lines(connection, after=broken))  # type: ignore[arg-type]
    with pytest.raises(DatabaseUnavailable):
        _read_from_a_server_process_that_ended(database)


def _read_from_a_server_process_that_ended(database: Database) -> None:
    with database.snapshot() as connection:
        mine = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with database.engine.connect() as other:
            other.execute(text(f"SELECT pg_terminate_backend({mine})"))
        list(transfer_lines(connection))
