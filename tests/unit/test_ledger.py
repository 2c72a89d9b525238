"""The ledger, on both engines: movements, refusals, replays, groups, and what an audit finds."""

import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from broker.models import Organisation
from quotas.balances import Balances, balances_of
from quotas.errors import AwardTooSmall, HoldTooSmall, ProgrammeTooSmall, QuotaError, TransferReused
from quotas.holds import HoldLeft, Side, open_hold, release, settle
from quotas.invariants import broken
from quotas.ledger import GENESIS, Done, Movement, Posting, link_hash, post
from quotas.models import Account, Award, Transfer
from quotas.policy import ProgrammePolicy
from quotas.programmes import budget_for, grant_award, open_programme, unawarded_credits
from quotas.writer import LedgerWriter, RowClash
from storage.database import Database, DatabaseUnavailable
from storage.tables import microseconds, utcnow

HOUR = 3_600_000


def award_of(database: Database, amount: int, *, budget: int = 1000 * HOUR) -> str:
    now = utcnow()
    with database.write() as session:
        periods = [(now - timedelta(days=1), now + timedelta(days=1), budget)]
        programme = open_programme(session, name="pack-ia", policy=ProgrammePolicy(kind="pack-ia"), budgets=periods)
        award = grant_award(
            session,
            project_id="prj-1",
            programme=programme,
            amount_credits=amount,
            start_at=now,
            end_at=now + timedelta(days=90),
        )
        return award.id


def posted(database: Database, *postings: Posting) -> list[object]:
    with database.write() as session:
        return list(post(session.connection(), postings, utcnow()))


def balances(database: Database, award_id: str) -> Balances:
    with database.read() as session:
        return balances_of(session, [award_id])[award_id]


def faults(database: Database) -> list[str]:
    with database.read() as session:
        return list(broken(session))


def test_award_is_funded_out_of_the_programme(database: Database) -> None:
    award_id = award_of(database, 100 * HOUR)
    assert balances(database, award_id) == Balances(available=100 * HOUR, held=0, consumed=0, overrun=0)
    with database.read() as session:
        award = session.get_one(Award, award_id)
        budget = budget_for(session, award.programme_id, award.start_at)
        assert unawarded_credits(session, budget.id) == 900 * HOUR
        assert session.get_one(Account, "treasury:region").balance == -1000 * HOUR
    assert faults(database) == []


def test_award_above_the_budget_is_refused_with_what_is_left(database: Database) -> None:
    with pytest.raises(ProgrammeTooSmall, match="has 10 h left to award, 11 h were asked for"):
        award_of(database, 11 * HOUR, budget=10 * HOUR)
    with database.read() as session:
        assert session.exec(select(Transfer)).all() == []


def test_hold_settle_release(database: Database) -> None:
    award_id = award_of(database, 100 * HOUR)
    assert posted(database, open_hold("job-1", Side(award_id, 10 * HOUR, 2000), None)) == [Done.POSTED]
    assert balances(database, award_id) == Balances(90 * HOUR, 10 * HOUR, 0, 0)
    posted(
        database,
        settle(HoldLeft("job-1", Side(award_id, 10 * HOUR, 2000)), 3 * HOUR, 0, "job-1/a"),
        release(HoldLeft("job-1", Side(award_id, 7 * HOUR, 2000))),
    )
    assert balances(database, award_id) == Balances(97 * HOUR, 0, 3 * HOUR, 0)
    assert faults(database) == []


def test_what_goes_beyond_the_hold_is_in_plain_sight(database: Database) -> None:
    award_id = award_of(database, 100 * HOUR)
    posted(database, open_hold("job-1", Side(award_id, 10 * HOUR, 2000), None))
    posted(database, settle(HoldLeft("job-1", Side(award_id, 10 * HOUR, 2000)), 12 * HOUR, 0, "job-1/a"))
    assert balances(database, award_id) == Balances(90 * HOUR, 0, 12 * HOUR, overrun=2 * HOUR)
    assert faults(database) == []


@pytest.mark.parametrize("order", [(4, 9), (9, 4)])
def test_order_of_attempts_does_not_matter(database: Database, order: tuple[int, int]) -> None:
    award_id = award_of(database, 100 * HOUR)
    posted(database, open_hold("job-1", Side(award_id, 10 * HOUR, 2000), None))
    remaining = 10 * HOUR
    for hours in order:
        posted(database, settle(HoldLeft("job-1", Side(award_id, remaining, 2000)), hours * HOUR, 0, f"job-1/{hours}"))
        remaining = max(0, remaining - hours * HOUR)
    assert balances(database, award_id) == Balances(90 * HOUR, 0, 13 * HOUR, overrun=3 * HOUR)


def test_replay_is_a_no_op(database: Database) -> None:
    award_id = award_of(database, 100 * HOUR)
    hold = open_hold("job-1", Side(award_id, 10 * HOUR, 2000), None)
    assert posted(database, hold, hold) == [Done.POSTED, Done.REPLAYED]
    assert posted(database, hold) == [Done.REPLAYED]
    charge = settle(HoldLeft("job-1", Side(award_id, 10 * HOUR, 2000)), 3 * HOUR, 0, "job-1/a")
    assert posted(database, charge, charge) == [Done.POSTED, Done.REPLAYED]
    assert balances(database, award_id) == Balances(90 * HOUR, 7 * HOUR, 3 * HOUR, 0)
    assert faults(database) == []


def test_one_id_for_two_movements_is_refused(database: Database) -> None:
    award_id = award_of(database, 100 * HOUR)
    posted(database, open_hold("job-1", Side(award_id, 10 * HOUR, 2000), None))
    [outcome] = posted(database, open_hold("job-1", Side(award_id, 11 * HOUR, 2000), None))
    assert isinstance(outcome, TransferReused)


def test_a_refused_posting_leaves_its_group_alone(database: Database) -> None:
    award_id = award_of(database, 10 * HOUR)
    outcomes = posted(
        database,
        open_hold("job-1", Side(award_id, 6 * HOUR, 2000), None),
        open_hold("job-2", Side(award_id, 6 * HOUR, 2000), None),
        open_hold("job-3", Side(award_id, 4 * HOUR, 2000), None),
    )
    assert outcomes[0] is Done.POSTED
    assert isinstance(outcomes[1], AwardTooSmall)
    assert outcomes[2] is Done.POSTED
    assert balances(database, award_id) == Balances(0, 10 * HOUR, 0, 0)
    assert faults(database) == []


def test_a_posting_of_two_movements_stands_or_falls_whole(database: Database) -> None:
    award_id = award_of(database, 10 * HOUR)
    twice = tuple(
        Movement(f"hold/{n}", "hold", f"available:{award_id}", f"held:{award_id}", 6 * HOUR, "job-1") for n in (1, 2)
    )
    [outcome] = posted(database, Posting(movements=twice))
    assert isinstance(outcome, AwardTooSmall)
    assert balances(database, award_id).available == 10 * HOUR


def test_no_more_is_drawn_than_the_hold_has(database: Database) -> None:
    award_id = award_of(database, 100 * HOUR)
    posted(
        database,
        open_hold("job-1", Side(award_id, 1 * HOUR, 2000), None),
        open_hold("job-2", Side(award_id, 9 * HOUR, 2000), None),
    )
    [outcome] = posted(database, release(HoldLeft("job-1", Side(award_id, 2 * HOUR, 2000))))
    assert isinstance(outcome, HoldTooSmall)
    assert faults(database) == []


def test_the_database_itself_refuses_a_negative_balance(database: Database) -> None:
    award_id = award_of(database, 10 * HOUR)
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(update(Account).where(Account.id == f"available:{award_id}").values(balance=-1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE ledger_transfer SET amount = amount + 1 WHERE sequence = 3", "transfer 3: its hash"),
        ("DELETE FROM ledger_transfer WHERE sequence = 2", "a row is missing"),
        ("DELETE FROM ledger_transfer WHERE sequence = 3", "the head names"),
        ("UPDATE ledger_account SET balance = balance + 1 WHERE kind = 'available'", "its transfers say"),
        ("UPDATE hold SET remaining = remaining - 1", "were drawn"),
        ("UPDATE award SET awarded_credits = awarded_credits + 1", "its transfer gave"),
        ("UPDATE ledger_head SET sequence = sequence + 1", "the head names"),
    ],
)
def test_tampering_is_found(database: Database, tampering: str, found: str) -> None:
    award_id = award_of(database, 100 * HOUR)
    posted(database, open_hold("job-1", Side(award_id, 10 * HOUR, 2000), None))
    assert faults(database) == []
    with database.write() as session:
        session.execute(text(tampering))
    assert any(found in fault for fault in faults(database)), faults(database)


def test_writer_never_overspends_under_concurrency(database: Database) -> None:
    award_id = award_of(database, 10 * HOUR)
    writer = LedgerWriter(database)
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def submit(number: int) -> None:
        outcome = writer.post(open_hold(f"job-{number}", Side(award_id, HOUR, 1000), None))
        with lock:
            outcomes[outcome.name if isinstance(outcome, Done) else outcome.code] += 1

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert outcomes == {"POSTED": 10, "award-too-small": 90}
    assert balances(database, award_id) == Balances(0, 10 * HOUR, 0, 0)
    assert faults(database) == []


def test_writer_names_the_one_whose_row_clashes(database: Database) -> None:
    award_id = award_of(database, 10 * HOUR)
    table = Organisation.__table__  # type: ignore[attr-defined]

    def hold(number: int) -> Posting:
        name = f"name-{number % 3}"
        row = {"id": f"org-{number}", "name": name, "kind": "company", "created_at": utcnow()}
        return open_hold(f"job-{number}", Side(award_id, HOUR, 1000), None, rows=((table, row),))

    writer = LedgerWriter(database)
    assert writer.post(hold(0)) is Done.POSTED
    results: dict[int, object] = {}

    def submit(number: int) -> None:
        try:
            results[number] = writer.post(hold(number))
        except RowClash as clash:
            results[number] = clash.code

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert results == {1: Done.POSTED, 2: Done.POSTED, 3: "row-clash"}
    assert balances(database, award_id).held == 3 * HOUR
    assert faults(database) == []


def test_a_closed_writer_refuses(database: Database) -> None:
    writer = LedgerWriter(database)
    writer.close()
    with pytest.raises(DatabaseUnavailable):
        writer.post(Posting(movements=()))


def test_refusals_are_outcomes_not_exceptions(database: Database) -> None:
    award_id = award_of(database, HOUR)
    with database.write() as session:
        [outcome] = post(session.connection(), [open_hold("job-1", Side(award_id, 2 * HOUR, 1000), None)], utcnow())
        assert isinstance(outcome, QuotaError)
        assert isinstance(session, Session)


@pytest.mark.parametrize(
    "details",
    [
        "",
        "words",
        "a=",
        "=b",
        "a=b;",
        "a=b|c",
        'a="b"',
        "a='b'",
        "a=b\\",
        "a=b\n",
        "a=é",
        "A=b",
        "a=b c",
        f"a={'b' * 199}",
    ],
)
def test_details_that_the_chain_could_not_carry_are_a_defect_of_the_caller(details: str) -> None:
    with pytest.raises(ValueError, match="details must be"):
        Movement("fund/1", "fund", "treasury:region", "programme:1", 1, "1", details)


def test_details_are_part_of_the_hash_and_nothing_where_there_are_none(database: Database) -> None:
    award_id = award_of(database, 10 * HOUR)
    plain = Movement("hold/1", "hold", f"available:{award_id}", f"held:{award_id}", HOUR, "1")
    worded = replace(plain, details="region=700;company=300;value=12.5/h")
    at = utcnow()
    assert link_hash(GENESIS, 1, plain, at) != link_hash(GENESIS, 1, worded, at)
    text_of_0001 = f"{GENESIS}|1|hold/1|hold|available:{award_id}|held:{award_id}|{HOUR}|1|{microseconds(at)}"
    assert link_hash(GENESIS, 1, plain, at) == sha256(text_of_0001.encode()).hexdigest()
    posted(database, Posting(movements=(replace(worded, kind="move", credit_id="treasury:region"),)))
    with database.read() as session:
        assert session.exec(select(Transfer.details)).all() == [None, None, worded.details]
    assert faults(database) == [f"transfer 3: no move goes from available:{award_id} to treasury:region"]
