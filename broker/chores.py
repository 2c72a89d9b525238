"""Chores: what a worker does now and then beside its sites' loops, each in a thread of its own.

Any number of workers may run and any may be killed at any instruction, so a chore is idempotent, takes what
it works on under a lock or a lease, and reaches the network outside of any transaction. One that fails is
logged and tried again after its interval; one that waits for a slow server holds up no other.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from broker import expiry
from broker.answers import forget_old_answers
from broker.backstops import limit_all
from broker.bootstrap import Services
from broker.leaving import take_back_all
from broker.notices import send_due
from broker.recheck import recheck_all
from broker.underuse import AGAIN_S, watch_awards

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Chore:
    """One thing to do again and again: `act` returns within about a minute, whatever the network does."""

    name: str
    interval_s: float
    """From the end of one turn to the beginning of the next; the first turn begins with the worker."""
    act: Callable[[Services], object]


def _forget_answers(services: Services) -> None:
    with services.database.write() as session:
        forget_old_answers(session)


CHORES: tuple[Chore, ...] = (
    Chore("forget-answers", 600, _forget_answers),
    Chore("send-notices", 10, send_due),
    Chore("watch-awards", AGAIN_S, watch_awards),
    Chore("award-expiry", expiry.AGAIN_S, expiry.carry_out),
    Chore("recheck", 3600, recheck_all),
    Chore("take-accounts-back", 60, take_back_all),
    Chore("limit-groups", 60, limit_all),
)
"""Every chore of a worker."""


class Chores:
    """Runs chores until told to stop."""

    def __init__(self, services: Services, chores: Iterable[Chore]) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(chore,), name=f"chore-{chore.name}", daemon=True)
            for chore in chores
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the turns under way and stop."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chore: Chore) -> None:
        while not self._stopping.is_set():
            try:
                chore.act(self._services)
            except Exception as error:
                log.exception("chore-fault", chore=chore.name, error=repr(error))
            self._stopping.wait(chore.interval_s)
