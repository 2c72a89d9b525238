"""A model against the ledger: whatever is granted, held, corrected, ended or replayed, the books are right.

And the model against ledgers that are wrong: each of tests/broken_ledgers.py must be found out, else the machine
looks at too little.
"""

from collections.abc import Iterator

import pytest
from broken_ledgers import BROKEN, Break
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from ledger_machine import LedgerMachine, books
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from quotas import corrections, holds
from quotas.audit import Audit
from quotas.errors import QuotaError
from quotas.ledger import Done, Posting, lock_head, post
from storage.tables import utcnow

LedgerMachine.TestCase.settings = settings(settings.get_profile("ledger"), stateful_step_count=15)


@pytest.mark.timeout(1200)
class TestLedgerMachine(LedgerMachine.TestCase):
    """As many examples as the profile says."""


bounded = settings(
    max_examples=1000,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
"""The same examples each time; many more than any of the broken ledgers needs, since finding one ends its test."""


@pytest.fixture
def _unchecked() -> Iterator[None]:
    """Take away the database's own CHECKs: the machine must see by itself what is wrong."""
    connection = books().connection
    connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
    yield
    connection.exec_driver_sql("PRAGMA ignore_check_constraints = OFF")


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("_unchecked")
@pytest.mark.slow
@pytest.mark.parametrize("mistake", BROKEN, ids=lambda mistake: mistake.__name__)
def test_a_broken_ledger_is_caught(mistake: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    with pytest.raises((AssertionError, IntegrityError, QuotaError)):
        run_state_machine_as_test(LedgerMachine, settings=bounded)


@pytest.mark.usefixtures("_unchecked")
def test_the_right_ledger_passes_the_same_examples() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(bounded, max_examples=100))


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=5),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.data(),
)
@settings(settings.get_profile("ledger"))
def test_the_order_of_usage_records_does_not_matter(
    records: list[tuple[int, int]], held: tuple[int, int], data: st.DataObject
) -> None:
    """In any order, and wherever among them the job is released: those before settle, those after adjust."""
    order = data.draw(st.permutations(records))
    known_in_time = data.draw(st.integers(0, len(records)))
    before, after = _balances_after(held, order, known_in_time)
    for number, owner_id in enumerate(_payers()):
        consumed = sum(record[number] for record in records)
        overrun = max(0, consumed - held[number])
        expected = {"available": before[f"available:{owner_id}"] - consumed + overrun, "held": 0,
                    "consumed": consumed, "overrun": -overrun}  # fmt: skip
        assert {kind: after[f"{kind}:{owner_id}"] for kind in expected} == expected
    untouched = [id_ for id_ in before if id_.split(":")[1] not in _payers()]
    assert all(after[id_] == before[id_] for id_ in untouched)


def _payers() -> tuple[str, str]:
    model = books().model
    return model.awards[1].id, list(model.contracts)[1]


def _balances_after(
    held: tuple[int, int], records: list[tuple[int, int]], known_in_time: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Run a job with these usage records; return all balances before and after it, and undo it."""
    connection = books().connection
    connection.exec_driver_sql("SAVEPOINT one_job")
    try:
        before = _balances(connection)
        sides = [holds.Side(owner_id, amount, 1000) for owner_id, amount in zip(_payers(), held, strict=True)]
        left = holds.HoldLeft("job-1", *sides)
        _post(connection, holds.open_hold("job-1", *sides))
        for number, charge in enumerate(records[:known_in_time]):
            _post(connection, holds.settle(left, *charge, f"job-1/{number}"))
            left = holds.after(left, *charge)
        _post(connection, holds.release(left))
        for number, charge in enumerate(records[known_in_time:], known_in_time):
            _adjust(connection, charge, f"job-1/{number}")
        assert list(Audit(connection).faults()) == []
        return before, _balances(connection)
    finally:
        connection.exec_driver_sql("ROLLBACK TO one_job")
        connection.exec_driver_sql("RELEASE one_job")


def _adjust(connection: Connection, charge: tuple[int, int], revision_id: str) -> None:
    lock_head(connection)
    for payer, more in zip(corrections.payers_of(connection, "job-1"), charge, strict=True):
        now = corrections.booked(connection, "job-1", payer.owner_id)
        left = corrections.available_of(connection, payer.owner_id)
        made = corrections.adjust(payer, now, "job-1", revision_id, now.charged + more, left)
        _post(connection, *made.postings)


def _post(connection: Connection, *postings: Posting) -> None:
    assert set(post(connection, postings, utcnow())) <= {Done.POSTED}


def _balances(connection: Connection) -> dict[str, int]:
    return dict(tuple(row) for row in connection.exec_driver_sql("SELECT id, balance FROM ledger_account"))
