"""The ledger writer: one per process, which commits waiting postings in groups.

One commit per hold behind one chain and one contract row would be the region's bottleneck (docs/rules.md).
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import Empty, SimpleQueue

from sqlalchemy.exc import IntegrityError

from quotas.ledger import Outcome, Posting, post
from storage.database import WAIT_S, Database, DatabaseUnavailable
from storage.tables import utcnow

GROUP_MAX = 64
GATHER_S = 0.0005
"""How long the writer waits for each posting that it has reason to expect."""

_Waiting = tuple[Posting, "Future[Outcome]"]


class RowClash(Exception):
    """A row of the posting's own tables stands already, such as an idempotency key; nothing was written."""

    code = "row-clash"


class LedgerWriter:
    """Takes postings from any thread and answers each when its group is committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._closed = False
        self._expected = 1
        """Postings of the next group, should all come back whom the last one answered."""
        self._thread.start()

    def post(self, posting: Posting) -> Outcome:
        """Commit a posting, or say which rule refused it.

        Raises:
            DatabaseUnavailable: not committed within `WAIT_S`; it will not be committed later either.
            RowClash: one of its own rows stands already.
        """
        if self._closed:
            raise DatabaseUnavailable("the broker is shutting down")
        future: Future[Outcome] = Future()
        self._queue.put((posting, future))
        try:
            return future.result(timeout=WAIT_S)
        except FutureTimeoutError:
            if future.cancel():
                raise DatabaseUnavailable(f"the database did not answer within {WAIT_S} s") from None
            return future.result()  # its group is being decided: the answer is bounded by the lock's wait

    def close(self) -> None:
        """Commit what waits, then stop."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            waiting, closing = self._group(first)
            running = [pair for pair in waiting if pair[1].set_running_or_notify_cancel()]
            if running:
                self._answer(running)
            self._expected = len(waiting) + self._queue.qsize()
            if closing:
                return

    def _group(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """Gather who waits: clients answered together come back one by one, and a commit costs the same for all."""
        group = [first]
        while len(group) < GROUP_MAX:
            try:
                wait_s = GATHER_S if len(group) < self._expected else 0
                item = self._queue.get(timeout=wait_s)
            except Empty:
                break
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _answer(self, group: Sequence[_Waiting]) -> None:
        try:
            outcomes = self._commit([posting for posting, _ in group])
        except IntegrityError as error:
            self._answer_singly(group, error)
        except Exception as error:  # noqa: BLE001 - each waiting caller raises it in its own thread
            for _, future in group:
                future.set_exception(error)
        else:
            for (_, future), outcome in zip(group, outcomes, strict=True):
                future.set_result(outcome)

    def _answer_singly(self, group: Sequence[_Waiting], error: IntegrityError) -> None:
        """Find whose row clashed: the group was undone whole, so each is tried alone."""
        if len(group) == 1:
            clash = RowClash("this row stands already")
            clash.__cause__ = error
            group[0][1].set_exception(clash)
            return
        for pair in group:
            self._answer([pair])

    def _commit(self, postings: Sequence[Posting]) -> list[Outcome]:
        with self._database.write_rows() as connection:
            return post(connection, postings, utcnow())
