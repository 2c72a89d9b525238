"""Certifications of sites' services: entered by one operator, confirmed by another, withdrawn by either."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.errors import BadRequest, NotAllowed, NotFound
from broker.models import Certification, Person, Site
from broker.names import named
from broker.schemas import CertificationIn, CertificationOut, Id, Page, Slug, WithdrawIn
from quotas.amounts import period
from storage.tables import new_id, utcnow

router = APIRouter(route_class=GuardedRoute, tags=["sites"])


@router.post("/certifications", status_code=201, response_model=CertificationOut, openapi_extra=allow("operator"))
def enter_certification(body: CertificationIn, at: At) -> Response:
    """Enter a proof; it counts once another operator confirmed it."""

    def act(session: Session) -> CertificationOut:
        start_at, end_at = period(body.start_on, body.end_on)
        row = Certification(
            id=new_id("crt"),
            site_id=named(session, Site, body.site).id,
            start_at=start_at,
            end_at=end_at,
            entered_by=at.caller.person_id,
            entered_at=utcnow(),
            **body.model_dump(exclude={"site", "start_on", "end_on"}),
        )
        session.add(row)
        session.flush()
        return _out(session, row)

    return at.once(body, act)


@router.post(
    "/certifications/{certification_id}/confirm", response_model=CertificationOut, openapi_extra=allow("operator")
)
def confirm_certification(certification_id: Id, at: At) -> Response:
    """Confirm a proof that another operator entered: from now on sensitive data may go to the site by it."""

    def act(session: Session) -> CertificationOut:
        row = _standing(session, certification_id)
        if row.entered_by == at.caller.person_id:
            raise NotAllowed("certifying a service takes two people, and you entered this", "ask another operator")
        if row.confirmed_at is None:
            row.confirmed_by, row.confirmed_at = at.caller.person_id, utcnow()
        return _out(session, row)

    return at.once(None, act, status=200)


@router.post(
    "/certifications/{certification_id}/withdraw", response_model=CertificationOut, openapi_extra=allow("operator")
)
def withdraw_certification(certification_id: Id, body: WithdrawIn, at: At) -> Response:
    """Let a proof count no longer, for good: one operator is enough to be careful."""

    def act(session: Session) -> CertificationOut:
        row = _standing(session, certification_id)
        row.withdrawn_by, row.withdrawn_at, row.withdrawn_why = at.caller.person_id, utcnow(), body.reason
        return _out(session, row)

    return at.once(body, act, status=200)


@router.get("/certifications", openapi_extra=allow(*ANYBODY))
def list_certifications(
    at: At, site: Annotated[Slug | None, Query()] = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[CertificationOut]:
    """List the certifications of sites' services, in the order in which they were entered."""
    with at.read() as session:
        wanted = select(Certification)
        if site is not None:
            wanted = wanted.where(col(Certification.site_id) == named(session, Site, site).id)
        rows = session.scalars(after(wanted, col(Certification.id), cursor, limit)).all()
        return page([_out(session, row) for row in rows], limit, "id")


def _standing(session: Session, certification_id: str) -> Certification:
    """Return a certification that was not withdrawn.

    Raises:
        NotFound, BadRequest: there is none.
    """
    row = session.get(Certification, certification_id, with_for_update=True)
    if row is None:
        raise NotFound(f"no certification {certification_id}", "`idf-compute certification list` shows them")
    if row.withdrawn_at is not None:
        raise BadRequest(f"certification {certification_id} was withdrawn", "enter it anew")
    return row


def _out(session: Session, row: Certification) -> CertificationOut:
    def name(person_id: str | None) -> str | None:
        return session.get_one(Person, person_id).name if person_id else None

    same = set(CertificationOut.model_fields) & set(Certification.model_fields)
    people: dict[str, Any] = {each: name(getattr(row, each)) for each in ("entered_by", "confirmed_by", "withdrawn_by")}
    known = row.model_dump(include=same - set(people))
    site = session.get_one(Site, row.site_id).name
    return CertificationOut(site=site, state=_state(row, utcnow()), **known, **people)


def _state(row: Certification, now: datetime) -> str:
    if row.withdrawn_at is not None:
        return "withdrawn"
    if row.end_at <= now:
        return "ended"
    if row.confirmed_at is None:
        return "entered"
    return "to come" if row.start_at > now else "valid"
