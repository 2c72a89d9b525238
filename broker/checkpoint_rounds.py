"""Each minute: sign the chain's head where it moved, and bring every place what it does not have yet."""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from broker.checkpoint_places import PlaceFailed, Send, sender
from broker.checkpoints import SignedHead, sign, signing_key
from broker.models import Checkpoint, CheckpointPlace
from broker.settings import Settings
from quotas.models import ChainHead, Transfer
from storage.database import Database
from storage.tables import utcnow

PLACE_S_MAX = 30
"""How long a place may take in one round; what is left waits for the next."""
DELIVER_MAX = 200
"""How many checkpoints a place is brought in one round; what is left waits for the next."""
PLACES_MIN = 2
FAILURE_MAX = 300
log = structlog.get_logger()


class ChainRewritten(Exception):
    """The chain no longer has the row that the newest checkpoint signed; nothing is signed on top of that."""


class CheckpointRounds:
    """The thread of a worker that makes checkpoints. Any number of workers may: a repeat does no harm."""

    def __init__(self, settings: Settings, database: Database, stopping: threading.Event) -> None:
        self._settings = settings
        self._database = database
        self._stopping = stopping
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the round under way."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                one_round(self._settings, self._database, utcnow(), self._stopping)
            except ChainRewritten as error:
                log.error("chain-rewritten", reason=str(error))  # noqa: TRY400 - the sentence says all
            except Exception as error:
                log.exception("checkpoint-fault", error=repr(error))
            self._stopping.wait(self._settings.checkpoint_interval_s)


def one_round(settings: Settings, database: Database, at: datetime, stopping: threading.Event | None = None) -> None:
    """Sign the head where it moved, then deliver, each place for itself, until told to stop.

    Raises:
        ChainRewritten: after the delivery of what was signed before.
        CheckpointWrong: the key cannot be read.
    """
    try:
        sign_head(database, signing_key(settings.data_dir), at)
    finally:
        for place in settings.checkpoint_places:
            until = time.monotonic() + PLACE_S_MAX
            send = sender(place, allow_loopback=settings.allow_loopback_sites)
            deliver(database, place.address, send, partial(_over, until, stopping))


def _over(until: float, stopping: threading.Event | None) -> bool:
    return time.monotonic() >= until or (stopping is not None and stopping.is_set())


def sign_head(database: Database, key: Ed25519PrivateKey, at: datetime) -> None:
    """Sign the chain's head, unless the newest checkpoint is of it.

    Raises:
        ChainRewritten: the chain has no row, or another one, where the newest checkpoint signed one.
    """
    with database.read() as session:
        newest = session.exec(select(Checkpoint).order_by(col(Checkpoint.sequence).desc()).limit(1)).first()
        if newest is not None:
            signed = session.exec(select(Transfer.hash).where(col(Transfer.sequence) == newest.sequence)).first()
            if signed != newest.hash:
                raise ChainRewritten(f"transfer {newest.sequence} is not the one that was signed: run the audit")
        head = session.exec(select(ChainHead)).one()
    if head.sequence == (newest.sequence if newest is not None else 0):
        return
    row = sign(key, head.sequence, head.hash, at).as_row()
    try:
        with database.write() as session:
            session.add(row)
    except IntegrityError:
        log.info("checkpoint-made-already", sequence=head.sequence)


def deliver(database: Database, place: str, send: Send, over: Callable[[], bool] = lambda: False) -> None:
    """Bring a place the checkpoints that it does not have yet, oldest first, until the round is over.

    No transaction is open while the place is spoken to.
    """
    with database.read() as session:
        known = session.get(CheckpointPlace, place) or CheckpointPlace(place=place, sequence=0)
        wanted = select(Checkpoint).where(col(Checkpoint.sequence) > known.sequence)
        rows = session.exec(wanted.order_by(col(Checkpoint.sequence)).limit(DELIVER_MAX)).all()
    sent, failure = known.sequence, None
    for row in rows:
        if over():
            break
        try:
            send(SignedHead.of_row(row))
        except PlaceFailed as error:
            failure = str(error)[:FAILURE_MAX]
            log.warning("checkpoint-place-failed", place=place, sequence=row.sequence, reason=failure)
            break
        sent = row.sequence
    if sent > known.sequence or failure is not None:
        _note(database, place, sent, failure)


def _note(database: Database, place: str, sent: int, failure: str | None) -> None:
    now = utcnow()
    with database.write() as session:
        row = session.get(CheckpointPlace, place) or CheckpointPlace(place=place, sequence=0)
        if sent > row.sequence:
            row.sequence, row.delivered_at = sent, now
        row.failed_at, row.failure = (None, None) if failure is None else (row.failed_at or now, failure)
        session.add(row)


def problems(settings: Settings, database: Database) -> tuple[list[str], list[str]]:
    """Return what is wrong with the places, and what is merely worth knowing."""
    wrong = []
    with database.read() as session:
        for place in settings.checkpoint_places:
            row = session.get(CheckpointPlace, place.address)
            if row is not None and row.failure is not None:
                wrong.append(
                    f"checkpoints do not reach {place.address} since {row.failed_at:%Y-%m-%d %H:%M} UTC: {row.failure}"
                )
    places = len({place.address for place in settings.checkpoint_places})
    if places >= PLACES_MIN:
        return wrong, []
    return wrong, [
        f"checkpoints go to {places} of at least {PLACES_MIN} places: set checkpoint_places, "
        "or nobody can prove that the ledger was not rewritten"
    ]
