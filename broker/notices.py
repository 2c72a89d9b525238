"""Notices: written with the event that they tell of, sent by the worker outside of any transaction.

At least once: a worker killed between the sending and the mark sends it again, under the same Message-ID.
While the mail server is away nothing is given up; a letter that the server does not take is tried
`TRIES_MAX` times with growing pauses, then it stands as failed until an operator sends it again.
"""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select, update

from broker.bootstrap import Services
from broker.letters import Letter, LetterPutOff, LetterRefused, PostAway, one_line
from broker.models import Notice, Person
from storage.database import Database
from storage.tables import new_id, utcnow

TRIES_MAX = 12
PAUSE_S_MIN, PAUSE_S_MAX = 60, 6 * 3600
"""12 tries with doubling pauses span about a day."""
LEASE = timedelta(minutes=10)
"""Longer than any sending lasts (broker/smtp.py cuts it after two minutes)."""
AWAY_S = 60
TURN_S_MAX = 30
"""How long a turn goes on taking letters; the next turn goes on."""

log = structlog.get_logger()
_table: Table = Notice.__table__  # type: ignore[attr-defined]


def tell(session: Session, event: str, person_ids: Iterable[str], subject: str, text: str) -> None:
    """Write one letter to each person about an event, in the caller's transaction; again is a no-op.

    `event` names what happened, once for ever, at most 160 characters: `award-spent/<award>/900`.
    """
    now = utcnow()
    rows = [
        {
            "id": new_id("ntc"),
            "key": _key(event, person_id),
            "person_id": person_id,
            "subject": one_line(subject),
            "text": text,
            "created_at": now,
            "tries": 0,
            "next_try_at": now,
        }
        for person_id in sorted(set(person_ids))
    ]
    if rows:
        session.flush()
        session.execute(insert_if_new(session, _table, "key"), rows)


def untold(session: Session, letters: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those pairs of event and person for which no letter stands yet."""
    wanted = {_key(event, person_id): (event, person_id) for event, person_id in letters}
    keys = list(wanted)
    for start in range(0, len(keys), 500):  # so many parameters are fine on both engines
        stand = select(Notice.key).where(col(Notice.key).in_(keys[start : start + 500]))
        for key in session.exec(stand):
            del wanted[key]
    return set(wanted.values())


def _key(event: str, person_id: str) -> str:
    return f"{event}/{person_id}"


def insert_if_new(session: Session, table: Table, *unique: str) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that leaves alone what stands already under these unique columns."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=unique)
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=unique)


def send_due(services: Services) -> int:
    """Send what is due, for about `TURN_S_MAX`; return how many letters went."""
    sent = 0
    until = time.monotonic() + TURN_S_MAX
    try:
        while time.monotonic() < until:
            letter = _next(services.database)
            if letter is None:
                break
            sent += _send(services, *letter)
    except PostAway as away:
        log.warning("post-away", reason=str(away))
    finally:
        services.postman.close()
    return sent


def send_again(session: Session, ids: Iterable[str] | None = None) -> int:
    """Make failed letters due again, all or those with these ids; return how many."""
    again = update(Notice).where(col(Notice.failed_at).is_not(None))
    if ids is not None:
        again = again.where(col(Notice.id).in_(list(ids)))
    done = session.exec(again.values(failed_at=None, tries=0, next_try_at=utcnow()))
    return int(done.rowcount)


def newest(session: Session, *, failed: bool, count_max: int) -> list[tuple[Notice, str]]:
    """Return the newest notices, all or the failed ones, each with its addressee's name."""
    wanted = select(Notice, Person.name).outerjoin(Person, col(Person.id) == col(Notice.person_id))
    if failed:
        wanted = wanted.where(col(Notice.failed_at).is_not(None))
    rows = session.exec(wanted.order_by(col(Notice.created_at).desc(), col(Notice.id).desc()).limit(count_max))
    return [(notice, name or str(notice.address)) for notice, name in rows]


def _next(database: Database) -> tuple[str, Letter] | None:
    """Take the letter that is due longest under a lease; any number of workers may."""
    now = utcnow()
    due = (
        select(Notice)
        .where(col(Notice.sent_at).is_(None), col(Notice.failed_at).is_(None), col(Notice.next_try_at) <= now)
        .order_by(col(Notice.next_try_at))
        .limit(1)
    )
    with database.read() as session:  # nearly always there is none, and a look costs no lock
        if session.exec(due).first() is None:
            return None
    with database.write() as session:
        notice = session.exec(due.with_for_update(skip_locked=True)).first()
        if notice is None:
            return None
        notice.next_try_at = now + LEASE
        return notice.id, _letter(session, notice)


def _letter(session: Session, notice: Notice) -> Letter:
    address = notice.address
    if notice.person_id is not None:
        address = mail_address(session, notice.person_id)
    return Letter(
        key=notice.key,
        to=address,
        addressee=notice.person_id or str(notice.address),
        subject=notice.subject,
        text=notice.text,
        written_at=notice.created_at,
    )


def mail_address(session: Session, person_id: str) -> str | None:
    """Return a person's mail address, None where none is known."""
    return session.get_one(Person, person_id).email


def _send(services: Services, id_: str, letter: Letter) -> int:
    try:
        services.postman.send(letter)
    except PostAway as away:
        _mark(services.database, id_, reason=str(away), next_try_at=utcnow() + timedelta(seconds=AWAY_S))
        raise
    except LetterRefused as refused:
        log.warning("notice-refused", notice=id_, reason=str(refused))
        _mark(services.database, id_, reason=str(refused), failed_at=utcnow(), tries=col(Notice.tries) + 1)
    except LetterPutOff as put_off:
        _put_off(services.database, id_, str(put_off))
    else:
        _mark(services.database, id_, sent_at=utcnow(), failed_at=None, reason=None, tries=col(Notice.tries) + 1)
        return 1
    return 0


def _put_off(database: Database, id_: str, reason: str) -> None:
    with database.write() as session:
        notice = session.get_one(Notice, id_)
        notice.tries += 1
        notice.reason = reason
        notice.next_try_at = _after(notice.tries, utcnow())
        if notice.tries >= TRIES_MAX:
            notice.failed_at = utcnow()
    log.warning("notice-put-off", notice=id_, reason=reason)


def _after(tries: int, now: datetime) -> datetime:
    return now + timedelta(seconds=min(PAUSE_S_MIN * 2 ** (tries - 1), PAUSE_S_MAX))


def _mark(database: Database, id_: str, **values: object) -> None:
    with database.write() as session:
        session.exec(update(Notice).where(col(Notice.id) == id_, col(Notice.sent_at).is_(None)).values(**values))
