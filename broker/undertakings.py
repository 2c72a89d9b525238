"""Single undertakings: the organisations whose State aid counts together (Regulation (EU) 2023/2831, article 2(2))."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Table, and_, func, or_, select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from broker.errors import BadRequest, LinkClash, NotFound
from broker.identifiers import SIREN_DIGITS
from broker.models import Organisation, OrganisationLink
from quotas.amounts import PARIS, day_start
from storage.tables import new_id, utcnow

_organisations: Table = Organisation.__table__  # type: ignore[attr-defined]
_links: Table = OrganisationLink.__table__  # type: ignore[attr-defined]


def undertaking_of(session: Session, organisation_id: str, at: datetime) -> list[str]:
    """Return the ids of all organisations that count as one with this one at a moment, itself included, sorted.

    They hang together through links that hold at that moment, through one SIREN (establishments of one company) and
    through one foreign identifier. A SIRET that fails its check counts like any other: better too many than too few.
    Which relations are entered as links is for people to judge by the article: control through a public body is none.
    """
    known: set[str] = set()
    fresh = {organisation_id}
    while fresh:
        known |= fresh
        fresh = (_linked(session, fresh, at) | _same_company(session, fresh)) - known
    return sorted(known)


def _linked(session: Session, ids: Iterable[str], at: datetime) -> set[str]:
    one, other = _links.c.organisation_id, _links.c.other_id
    wanted = select(one, other).where(or_(one.in_(ids), other.in_(ids)), _holds_at(at))
    return {id_ for row in session.execute(wanted) for id_ in row}


def _holds_at(at: datetime) -> ColumnElement[bool]:
    return and_(_links.c.since <= at, or_(_links.c.until.is_(None), _links.c.until > at))


def _same_company(session: Session, ids: Iterable[str]) -> set[str]:
    mine, other = _organisations.alias(), _organisations.alias()
    same = or_(
        _siren(mine) == _siren(other),
        and_(mine.c.foreign_country == other.c.foreign_country, _bare(mine) == _bare(other)),
    )
    wanted = select(other.c.id).select_from(mine.join(other, same)).where(mine.c.id.in_(ids))
    return set(session.scalars(wanted))


def _siren(organisations: FromClause) -> Any:
    return func.substr(organisations.c.siret, 1, SIREN_DIGITS)


def _bare(organisations: FromClause) -> Any:
    """Return the foreign identifier without what stands between its characters: `HRB 42243` is `HRB42243`."""
    number: Any = organisations.c.foreign_id
    for separator in (" ", ".", "-", "/"):
        number = func.replace(number, separator, "")
    return number


def link(
    session: Session, one: Organisation, other: Organisation, basis: str, days: tuple[date | None, date | None]
) -> OrganisationLink:
    """Link two organisations from a day (today when None) to a day (None: no end is known), the last included.

    Raises:
        BadRequest: an organisation is linked with itself, or the last day lies before the first.
        LinkClash: they are linked for a part of that time already.
    """
    if one.id == other.id:
        raise BadRequest(f"{one.name} is one undertaking with itself anyhow", "name another organisation")
    since = day_start(days[0] or _today())
    until = None if days[1] is None else day_start(days[1] + timedelta(days=1))
    if until is not None and until <= since:
        raise BadRequest(f"the last day {days[1]} lies before the first", "a last day that is not over, or --from")
    _lock(session, one, other)
    for row in links_between(session, one, other):
        if row.since != row.until and (until is None or row.since < until) and (row.until is None or since < row.until):
            raise LinkClash(
                f"{one.name} and {other.name} are linked {_days_text(row)} already: {row.basis}",
                f"end that with `idf-compute org unlink {one.name} {other.name}`, or choose other days",
            )
    first, second = sorted((one.id, other.id))
    made = OrganisationLink(
        id=new_id("lnk"), organisation_id=first, other_id=second, since=since, until=until, basis=basis
    )
    session.add(made)
    session.flush()
    return made


def unlink(session: Session, one: Organisation, other: Organisation, on: date | None) -> OrganisationLink:
    """End the link of two organisations with a day, included (yesterday when None); before its first: it never held.

    Raises:
        NotFound: no link between them is still open at that day.
        BadRequest: the day lies more than a day before the link's first.
    """
    _lock(session, one, other)
    last = on or _today() - timedelta(days=1)
    until = day_start(last + timedelta(days=1))
    open_ = [
        r for r in links_between(session, one, other) if r.since != r.until and (r.until is None or r.until > until)
    ]
    if not open_:
        raise NotFound(
            f"no link between {one.name} and {other.name} lasts beyond {last}",
            f"`idf-compute org show {one.name}` tells",
        )
    row = open_[0]
    if until < row.since:
        raise BadRequest(
            f"{one.name} and {other.name} are linked {_days_text(row)}, and {last} lies before that",
            f"{row.since.astimezone(PARIS).date() - timedelta(days=1)}, which says that it never held, or a later day",
        )
    row.until = until
    session.add(row)
    session.flush()
    return row


def links_of(session: Session, organisation: Organisation) -> list[OrganisationLink]:
    """Return all links of an organisation, over or not, oldest first."""
    own = or_(_links.c.organisation_id == organisation.id, _links.c.other_id == organisation.id)
    return list(session.exec(select_rows(OrganisationLink).where(own).order_by(_links.c.since, _links.c.id)))


def links_between(session: Session, one: Organisation, other: Organisation) -> list[OrganisationLink]:
    """Return the links of two organisations, whichever is named first, oldest first."""
    first, second = sorted((one.id, other.id))
    pair = and_(_links.c.organisation_id == first, _links.c.other_id == second)
    return list(session.exec(select_rows(OrganisationLink).where(pair).order_by(_links.c.since)))


def days_of(row: OrganisationLink) -> tuple[date, date | None]:
    """Return the first and the last day of a link in Europe/Paris, the last included."""
    last = None if row.until is None else (row.until - timedelta(microseconds=1)).astimezone(PARIS).date()
    return row.since.astimezone(PARIS).date(), last


def _days_text(row: OrganisationLink) -> str:
    first, last = days_of(row)
    return f"from {first} on" if last is None else f"from {first} to {last}"


def _today() -> date:
    return utcnow().astimezone(PARIS).date()


def _lock(session: Session, *organisations: Organisation) -> None:
    """Let nobody else link or unlink these at this moment, so that no two links of a pair overlap."""
    ids = sorted(organisation.id for organisation in organisations)
    session.execute(
        select(col(Organisation.id))
        .where(col(Organisation.id).in_(ids))
        .order_by(col(Organisation.id))
        .with_for_update()
    )
