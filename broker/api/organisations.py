"""Organisations, and the links that make several of them one undertaking."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from sqlmodel import Session, col, select

from broker.api.edge import At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.identifiers import REGION_DEPARTEMENTS, SIREN_DIGITS, is_in_region
from broker.models import Organisation, OrganisationLink
from broker.names import check_free, named
from broker.organisations import change, identifier_problem
from broker.schemas import (
    LinkEndIn,
    LinkIn,
    LinkOut,
    OrganisationChange,
    OrganisationDetail,
    OrganisationIn,
    OrganisationOut,
    Page,
    Slug,
)
from broker.undertakings import days_of, link, links_of, undertaking_of, unlink
from storage.tables import new_id, utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
READERS = ("manager", "operator", "auditor")
OrganisationName = Annotated[Slug, Path(alias="organisation")]


@router.post("/organisations", status_code=201, response_model=OrganisationOut, openapi_extra=allow("manager"))
def create_organisation(body: OrganisationIn, at: At) -> Response:
    """Enter an organisation."""

    def act(session: Session) -> OrganisationOut:
        check_free(session, Organisation, body.name)
        organisation = Organisation(id=new_id("org"), created_at=utcnow(), **body.model_dump())
        session.add(organisation)
        return _organisation_out(organisation)

    return at.once(body, act)


@router.get("/organisations", openapi_extra=allow(*READERS))
def list_organisations(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[OrganisationOut]:
    """List organisations by name, with what is wrong with their identifiers."""
    with at.read() as session:
        rows = session.scalars(after(select(Organisation), col(Organisation.name), cursor, limit)).all()
        return page([_organisation_out(row) for row in rows], limit, "name")


@router.get("/organisations/{organisation}", openapi_extra=allow(*READERS))
def show_organisation(name: OrganisationName, at: At) -> OrganisationDetail:
    """Show an organisation with its links and its single undertaking of this moment."""
    with at.read() as session:
        return _detail(session, named(session, Organisation, name))


@router.post("/organisations/{organisation}", response_model=OrganisationOut, openapi_extra=allow("manager"))
def change_organisation(name: OrganisationName, body: OrganisationChange, at: At) -> Response:
    """Change what is known of an organisation: an identifier that arrived, a size, a département."""

    def act(session: Session) -> OrganisationOut:
        organisation = named(session, Organisation, name)
        change(session, organisation, body.model_dump(exclude={"clear"}, exclude_none=True), list(body.clear))
        return _organisation_out(organisation)

    return at.once(body, act, status=200)


@router.post(
    "/organisations/{organisation}/links", status_code=201, response_model=LinkOut, openapi_extra=allow("manager")
)
def link_organisations(name: OrganisationName, body: LinkIn, at: At) -> Response:
    """Say that another organisation belongs to the same single undertaking for a time."""

    def act(session: Session) -> LinkOut:
        one, other = named(session, Organisation, name), named(session, Organisation, body.other)
        return _link_out(session, one, link(session, one, other, body.basis, (body.from_on, body.to_on)))

    return at.once(body, act)


@router.post("/organisations/{organisation}/links/end", response_model=LinkOut, openapi_extra=allow("manager"))
def unlink_organisations(name: OrganisationName, body: LinkEndIn, at: At) -> Response:
    """End the link with another organisation; what it counted for until then still counts."""

    def act(session: Session) -> LinkOut:
        one, other = named(session, Organisation, name), named(session, Organisation, body.other)
        return _link_out(session, one, unlink(session, one, other, body.on))

    return at.once(body, act, status=200)


def _organisation_out(organisation: Organisation) -> OrganisationOut:
    code = organisation.departement
    return OrganisationOut(
        **organisation.model_dump(),
        departement_name=None if code is None else REGION_DEPARTEMENTS.get(code),
        is_in_region=None if code is None else is_in_region(code),
        identifier_problem=identifier_problem(organisation),
    )


def _detail(session: Session, organisation: Organisation) -> OrganisationDetail:
    ids = undertaking_of(session, organisation.id, utcnow())
    names = session.exec(
        select(Organisation.name).where(col(Organisation.id).in_(ids)).order_by(col(Organisation.name))
    )
    return OrganisationDetail(
        **_organisation_out(organisation).model_dump(),
        siren=organisation.siret and organisation.siret[:SIREN_DIGITS],
        links=[_link_out(session, organisation, row) for row in links_of(session, organisation)],
        undertaking=list(names),
    )


def _link_out(session: Session, one: Organisation, row: OrganisationLink) -> LinkOut:
    other_id = row.other_id if row.organisation_id == one.id else row.organisation_id
    first, last = days_of(row)
    return LinkOut(
        id=row.id,
        other=session.get_one(Organisation, other_id).name,
        basis=row.basis,
        from_on=first,
        to_on=last,
        holds=_holds(row),
    )


def _holds(row: OrganisationLink) -> bool:
    return row.since <= utcnow() and (row.until is None or utcnow() < row.until)
