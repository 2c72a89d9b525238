"""Corrections of a job's charge: the order in which things become known does not matter, and nothing goes twice."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import Session, col, select

from quotas.corrections import Payer, adjust, available_of, booked, refund
from quotas.errors import RefundTooLarge
from quotas.invariants import broken
from quotas.ledger import Done, Movement, Posting, account_id, lock_head, open_account, post
from quotas.models import Account
from storage.database import Database
from storage.tables import utcnow

HELD = 1000
PLENTY = 10_000
_numbers = count()
some = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

revisions = st.lists(st.integers(0, 800), min_size=1, max_size=3)
"""The charges of one attempt as it becomes known, the last one for good."""


@dataclass
class Job:
    """One job of an award of its own: its attempts by what was last known of them."""

    session: Session
    name: str
    charges: dict[int, int]

    @property
    def payer(self) -> Payer:
        return Payer(self.name, HELD, 1000)

    def move(self, kind: str, debit: str, credit: str, amount: int, number: object = "") -> None:
        if amount:
            accounts = [name if ":" in name else account_id(name, self.name) for name in (debit, credit)]
            movement = Movement(f"{kind}/{self.name}{number}", kind, accounts[0], accounts[1], amount, self.name)
            self.post([Posting(movements=(movement,))])

    def post(self, postings: list[Posting]) -> None:
        outcomes = post(self.session.connection(), postings, utcnow())
        assert set(outcomes) <= {Done.POSTED}, outcomes

    def settle(self, attempts: dict[int, int]) -> None:
        """Charge what is known when the job ends: as far as its hold reaches, the rest to overrun.

        What a settled hold leaves behind is what was moved at once here, without a row of a hold.
        """
        left = HELD
        for number, charge in attempts.items():
            covered = min(left, charge)
            self.move("adjust", "available", "consumed", covered, number)
            self.move("overrun", "overrun", "consumed", charge - covered, number)
            left -= covered
            self.charges[number] = charge

    def know(self, number: int, revision: int, charge: int) -> list[Posting]:
        """Post that an attempt's charge is now another one."""
        connection = self.session.connection()
        lock_head(connection)
        now = booked(connection, self.name, self.name)
        total = now.charged - self.charges.get(number, 0) + charge
        id_ = f"{self.name}{number}/{revision}"
        made = adjust(self.payer, now, self.name, id_, total, available_of(connection, self.name))
        self.post(list(made.postings))
        self.charges[number] = charge
        return list(made.postings)

    def give_back(self, number: int, amount: int) -> None:
        now = booked(self.session.connection(), self.name, self.name)
        movements = refund(self.payer, now, self.name, f"{self.name}{number}", amount)
        self.post([Posting(movements=movements)])

    def balances(self) -> dict[str, int]:
        self.session.expire_all()
        rows = self.session.exec(select(Account).where(col(Account.owner_id) == self.name))
        return {row.kind: row.balance for row in rows}


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.write() as opened:
        yield opened
        assert list(broken(opened)) == []


def job(session: Session, awarded: int = PLENTY) -> Job:
    made = Job(session, f"job-{next(_numbers)}", {})
    for kind in ("available", "held", "consumed", "overrun"):
        open_account(session, kind, made.name)
    made.move("contract", "treasury:region", "available", awarded)
    return made


def told(draw: st.DataObject, attempts: list[list[int]]) -> tuple[dict[int, int], list[tuple[int, int, int]]]:
    """What is known when the job ends, and in which order all the rest becomes known afterwards."""
    at_the_end = {n: known[0] for n, known in enumerate(attempts) if draw.draw(st.booleans())}
    steps = [(n, r, charge) for n, known in enumerate(attempts) for r, charge in enumerate(known)]
    later = [step for step in steps if step[1] or step[0] not in at_the_end]
    shuffled = draw.draw(st.permutations(later))
    turns = {n: iter(sorted(step for step in later if step[0] == n)) for n in range(len(attempts))}
    return at_the_end, [next(turns[n]) for n, _, _ in shuffled]  # of one attempt, the revisions keep their order


@given(st.lists(revisions, min_size=1, max_size=4), st.data())
@some
def test_the_order_of_records_does_not_matter(session: Session, attempts: list[list[int]], data: st.DataObject) -> None:
    at_the_end, later = told(data, attempts)
    made = job(session)
    made.settle(at_the_end)
    for step in later:
        made.know(*step)
    total = sum(known[-1] for known in attempts)
    overrun = max(0, total - HELD)
    assert made.balances() == {
        "available": PLENTY - total + overrun, "held": 0, "consumed": total, "overrun": -overrun
    }  # fmt: skip


@given(st.lists(revisions, min_size=1, max_size=3), st.data())
@some
def test_a_replay_is_a_no_op(session: Session, attempts: list[list[int]], data: st.DataObject) -> None:
    at_the_end, later = told(data, attempts)
    made = job(session)
    made.settle(at_the_end)
    for number, revision, charge in later:
        postings = made.know(number, revision, charge)
        before = made.balances()
        assert set(post(session.connection(), postings, utcnow())) <= {Done.REPLAYED}
        assert made.know(number, revision, charge) == []
        assert made.balances() == before


@given(st.lists(st.integers(0, 800), min_size=1, max_size=4), st.lists(st.integers(1, 900), max_size=3), st.data())
@some
def test_refunds_and_late_attempts_come_to_the_same_in_any_order(
    session: Session, attempts: list[int], refunds: list[int], data: st.DataObject
) -> None:
    made, given_back = job(session), 0
    made.settle({})
    steps = [*(("know", n) for n in range(len(attempts))), *(("back", n) for n in range(len(refunds)))]
    for what, number in data.draw(st.permutations(steps)):
        if what == "know":
            made.know(number, 1, attempts[number])
            continue
        left = sum(made.charges.values()) - given_back
        if refunds[number] > left:
            with pytest.raises(RefundTooLarge):
                made.give_back(number, refunds[number])
            continue
        made.give_back(number, refunds[number])
        given_back += refunds[number]
    total = sum(attempts)
    overrun = max(0, max(0, total - HELD) - given_back)
    consumed = total - given_back
    assert made.balances() == {
        "available": PLENTY - consumed + overrun, "held": 0, "consumed": consumed, "overrun": -overrun
    }  # fmt: skip


@given(st.integers(0, 600), st.lists(revisions, min_size=1, max_size=4), st.data())
@some
def test_where_too_little_is_available_overrun_pays_and_nothing_goes_below_zero(
    session: Session, spare: int, attempts: list[list[int]], data: st.DataObject
) -> None:
    at_the_end, later = told(data, attempts)
    made = job(session, awarded=HELD + spare)
    made.settle(at_the_end)
    taken = made.balances()["available"] // 2
    made.move("contract-return", "available", "treasury:region", taken)
    for step in later:
        made.know(*step)
    found, total = made.balances(), sum(known[-1] for known in attempts)
    assert found["consumed"] == total
    assert min(found["available"], found["held"]) >= 0
    assert -found["overrun"] >= max(0, total - HELD)
    assert sum(found.values()) == HELD + spare - taken


def test_what_refunds_come_to_under_a_lower_charge(session: Session) -> None:
    made = job(session)
    made.settle({1: 600})
    made.give_back(1, 600)
    connection = session.connection()
    now = booked(connection, made.name, made.name)
    down = adjust(made.payer, now, made.name, "1/2", 400, PLENTY, refund_id="r", refunded=400, details="value=unknown")
    moves = [(m.id, m.amount, m.details) for posting in down.postings for m in posting.movements]
    assert moves == [("refund/r/overrun", 200, None), ("adjust/1/2/overrun", 200, "value=unknown")]
    assert down.from_overrun == -200
    made.post(list(down.postings))
    assert made.balances() == {"available": PLENTY, "held": 0, "consumed": 0, "overrun": 0}
    now = booked(connection, made.name, made.name)
    assert (now.charged, now.refunded, now.overrun, now.refundable) == (400, 400, 0, 0)
