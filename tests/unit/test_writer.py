"""The ledger writer: what it does while the books are locked by another, on both engines."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep

import pytest
from books import HOUR, write_books
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from broker.models import Organisation
from quotas import writer as module
from quotas.holds import Side, open_hold
from quotas.ledger import Done, Movement, Posting
from quotas.writer import LedgerWriter, RowClash
from storage.database import Database, DatabaseUnavailable
from storage.tables import utcnow

LONG_S = 20


class Books(Database):
    """A database that says when the writer's transaction begins."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.begun = threading.Event()
        self.groups = 0

    @contextmanager
    def write_rows(self) -> Iterator[Connection]:
        self.begun.set()
        with super().write_rows() as connection:
            yield connection
        self.groups += 1


class Desk:
    """A writer, an award of 100 hours, and callers in threads of their own."""

    def __init__(self, database: Books) -> None:
        self.database = database
        self.award_id = write_books(database, 0)
        self.writer = LedgerWriter(database)
        self.callers = ThreadPoolExecutor(8)

    def hold(self, number: int, organisation: str | None = None) -> Posting:
        row = {"id": f"org-{number}", "name": organisation, "kind": "company", "created_at": utcnow()}
        rows = ((Organisation.__table__, row),) if organisation else ()  # type: ignore[attr-defined]
        return open_hold(f"job-{number}", Side(self.award_id, HOUR, 1000), None, rows=rows)

    @contextmanager
    def books_locked(self) -> Iterator[None]:
        """Hold the chain's head, as another process would, and let the writer wait for it with one posting."""
        with self.database.write() as session:
            session.execute(text("UPDATE ledger_head SET sequence = sequence"))
            first = self.callers.submit(self.writer.post, self.hold(0))
            assert self.database.begun.wait(LONG_S)
            yield
        assert first.result(LONG_S) is Done.POSTED

    def held(self) -> set[str]:
        with self.database.read() as session:
            return set(session.execute(text("SELECT id FROM hold")).scalars())


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    made = Desk(Books(database_url))
    yield made
    made.writer.close()
    made.callers.shutdown()
    made.database.close()


def wait_until(holds: Callable[[], bool]) -> None:
    end = monotonic() + LONG_S
    while not holds():
        assert monotonic() < end
        sleep(0.005)


def test_who_waited_too_long_is_refused_and_nothing_of_it_is_committed_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The posting whose group is being decided waits on; the one behind it can still be taken back."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "WAIT_S", 1)
        with desk.books_locked(), pytest.raises(DatabaseUnavailable, match="did not answer"):
            desk.writer.post(desk.hold(1))
    wait_until(lambda: desk.writer._queue.empty() and desk.writer._expected == 1)  # its group, of none, is over
    assert desk.writer.post(desk.hold(2)) is Done.POSTED
    assert desk.held() == {"job-0", "job-2"}


@pytest.mark.parametrize(("waiting", "groups"), [(1, 2), (2, 2), (3, 3)])
def test_closing_commits_what_waits_in_groups_of_at_most_a_number(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, waiting: int, groups: int
) -> None:
    monkeypatch.setattr(module, "GROUP_MAX", 2)
    with desk.books_locked():
        answers = [desk.callers.submit(desk.writer.post, desk.hold(number)) for number in range(1, waiting + 1)]
        wait_until(lambda: desk.writer._queue.qsize() == waiting)
        closing = desk.callers.submit(desk.writer.close)
        wait_until(lambda: desk.writer._queue.qsize() == waiting + 1)
    closing.result(LONG_S)
    assert [answer.result(LONG_S) for answer in answers] == [Done.POSTED] * waiting
    assert desk.held() == {f"job-{number}" for number in range(waiting + 1)}
    assert desk.database.groups == groups


def test_in_a_group_only_the_one_whose_row_stands_is_refused(desk: Desk) -> None:
    with desk.books_locked():
        names = {1: "acme", 2: "echo", 3: "acme"}
        holds = {number: desk.hold(number, name) for number, name in names.items()}
        answers = {number: desk.callers.submit(desk.writer.post, posting) for number, posting in holds.items()}
        wait_until(lambda: desk.writer._queue.qsize() == len(names))
    refused = {number for number, answer in answers.items() if answer.exception(LONG_S)}
    [number] = refused
    assert number in (1, 3)
    clash = answers[number].exception()
    assert isinstance(clash, RowClash)
    assert isinstance(clash.__cause__, IntegrityError)
    assert desk.held() == {"job-0", "job-1", "job-2", "job-3"} - {f"job-{number}"}


def test_what_breaks_in_a_group_is_raised_in_each_callers_thread_and_the_writer_goes_on(desk: Desk) -> None:
    with desk.books_locked():
        nowhere = Posting(movements=(Movement("hold/x", "hold", "available:none", "held:none", HOUR, "x"),))
        answers = [desk.callers.submit(desk.writer.post, posting) for posting in (nowhere, desk.hold(1))]
        wait_until(lambda: desk.writer._queue.qsize() == 2)
    assert [repr(answer.exception(LONG_S)) for answer in answers] == ["KeyError('available:none')"] * 2
    assert desk.held() == {"job-0"}
    assert desk.writer.post(desk.hold(2)) is Done.POSTED
