"""The worker: one loop per site that sends, cancels, adopts and reconciles, and outlives every fault.

Any number of worker processes may run on PostgreSQL, and any may be killed at any instruction. On SQLite
one runs at a time, which a lock on a file beside the database holds.
"""

import fcntl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import structlog
from sqlmodel import col, select

from adapters.errors import SiteError
from broker.adopt import adopt, forget_leases
from broker.bootstrap import Services
from broker.cancel import send_cancels
from broker.checkpoint_rounds import CheckpointRounds
from broker.chores import CHORES, Chores
from broker.dispatch import BACKOFF_S_MAX, Desk, dispatch
from broker.let_go import let_go
from broker.models import Site
from broker.reconcile import reconcile
from broker.schemas import SiteIn
from storage.database import DatabaseUnavailable

SITES_AGAIN_S = 2
log = structlog.get_logger()


class WorkerRunsAlready(DatabaseUnavailable):
    """Another worker process works on this SQLite database."""


class Worker:
    """Keeps one thread per enrolled site, and one per chore."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._lock: TextIO | None = None
        self._chores = Chores(services, CHORES)
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._checkpoints = CheckpointRounds(services.settings, services.database, self._stopping)

    def start(self) -> None:
        """Begin.

        Raises:
            WorkerRunsAlready: on SQLite, when another process does.
        """
        if self._services.database.is_sqlite:
            self._lock = _lock_file(Path(str(self._services.database.engine.url.database)))
        self._checkpoints.start()
        self._thread.start()
        self._chores.start()

    def stop(self) -> None:
        """Finish the steps under way and stop."""
        self._stopping.set()
        self._services.bell.ring()
        self._thread.join()
        self._chores.stop()
        self._checkpoints.join()
        if self._lock is not None:
            self._lock.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._watch_new_sites()
            except Exception as error:
                log.exception("worker-fault", error=repr(error))
            self._stopping.wait(SITES_AGAIN_S)
        for thread in self._threads.values():
            thread.join()

    def _watch_new_sites(self) -> None:
        with self._services.database.read() as session:
            ids = session.exec(select(Site.id)).all()
        for id_ in ids:
            if id_ not in self._threads:
                loop = SiteLoop(self._services, id_, self._stopping)
                thread = threading.Thread(target=loop.run, name=f"site-{id_}", daemon=True)
                self._threads[id_] = thread
                thread.start()


class SiteLoop:
    """The loop of one site."""

    def __init__(self, services: Services, site_id: str, stopping: threading.Event) -> None:
        self._services = services
        self._site_id = site_id
        self._stopping = stopping
        self._faults = 0
        self._reconcile_at = 0.0

    def run(self) -> None:
        """Work until told to stop."""
        heard = 0
        forgotten = not self._services.database.is_sqlite
        while not self._stopping.is_set():
            desk = self._desk()
            if desk is not None and not forgotten:
                forgotten = self._step(desk, forget_leases) is not None
            if desk is not None:
                self._turn(desk)
            heard = self._services.bell.wait(heard, self._pause_s())

    def _desk(self) -> Desk | None:
        try:
            with self._services.database.read() as session:
                settings = session.exec(select(Site.settings).where(col(Site.id) == self._site_id)).one()
            site = SiteIn.model_validate(settings)
            return Desk(self._services, self._site_id, site, self._services.schedulers.at(self._site_id, site))
        except Exception as error:
            log.exception("site-fault", site=self._site_id, error=repr(error))
            return None

    def _turn(self, desk: Desk) -> None:
        while not self._stopping.is_set() and (self._step(desk, dispatch) or 0) > 0:
            pass  # more may wait than one batch holds
        self._step(desk, send_cancels)
        if time.monotonic() >= self._reconcile_at:
            ok = self._step(desk, adopt) is not None and self._step(desk, reconcile) is not None
            if ok:
                self._step(desk, let_go)
            self._faults = 0 if ok else self._faults + 1
            self._reconcile_at = time.monotonic() + self._interval_s()

    def _step(self, desk: Desk, act: Callable[[Desk], int | None]) -> int | None:
        """Do one step; None says that it failed, which is logged and tried again."""
        try:
            return act(desk) or 0
        except SiteError as error:
            log.warning(
                "site-trouble",
                site=desk.settings.name,
                step=act.__name__,
                code=error.code,
                reason=error.reason,
            )
        except Exception as error:
            log.exception("step-fault", site=desk.settings.name, step=act.__name__, error=repr(error))
        return None

    def _interval_s(self) -> float:
        return min(self._services.settings.reconcile_interval_s * float(2 ** min(self._faults, 5)), BACKOFF_S_MAX)

    def _pause_s(self) -> float:
        until_reconcile = max(0.0, self._reconcile_at - time.monotonic())
        return min(self._services.settings.dispatch_interval_s, until_reconcile or 0.01)


def _lock_file(database: Path) -> TextIO:
    file = database.with_suffix(".worker-lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise WorkerRunsAlready("another worker process works on this database; stop it, or use PostgreSQL") from None
    return file
