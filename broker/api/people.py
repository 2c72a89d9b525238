"""Persons and their tokens."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, Edge, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.auth import new_token
from broker.errors import NotFound
from broker.memberships import valid_at
from broker.models import ApiToken, Membership, Person, Project
from broker.names import check_free, named
from broker.schemas import (
    MeOut,
    Page,
    PersonChange,
    PersonDetail,
    PersonIn,
    PersonOut,
    Slug,
    TokenIn,
    TokenOut,
    TokenSecretOut,
)
from broker.schemas.people import RoleIn
from storage.tables import new_id, utcnow

router = APIRouter(route_class=GuardedRoute, tags=["people"])


def person_out(person: Person) -> PersonOut:
    """Show a person without their address of mail."""
    return PersonOut.model_validate(person, from_attributes=True)


def person_detail(person: Person) -> PersonDetail:
    """Show a person with their address of mail."""
    return PersonDetail.model_validate(person, from_attributes=True)


@router.get("/me", openapi_extra=allow(*ANYBODY))
def me(at: At) -> MeOut:
    """Who you are, and your projects."""
    with at.read() as session:
        person = session.get_one(Person, at.caller.person_id)
        own = select(Project.name, Membership.role, Membership.end_at).join(Membership)
        own = own.where(col(Membership.person_id) == person.id, valid_at(utcnow()))
        rows = session.exec(own.order_by(col(Project.name)).limit(500)).all()
        roles = [RoleIn(project=project, role=role, until=until) for project, role, until in rows]
        return MeOut(person=person_detail(person), projects=[each.project for each in roles], memberships=roles)


@router.post("/persons", status_code=201, response_model=PersonOut, openapi_extra=allow("operator"))
def create_person(body: PersonIn, at: At) -> Response:
    """Enter a person with roles."""

    def act(session: Session) -> PersonOut:
        check_free(session, Person, body.name)
        person = Person(id=new_id("psn"), created_at=utcnow(), **body.model_dump())
        session.add(person)
        return person_out(person)

    return at.once(body, act)


@router.get("/persons", openapi_extra=allow("operator", "manager", "auditor"))
def list_persons(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[PersonDetail]:
    """List persons by name."""
    with at.read() as session:
        rows = session.scalars(after(select(Person), col(Person.name), cursor, limit)).all()
        return page([person_detail(row) for row in rows], limit, "name")


@router.post("/persons/{person}", response_model=PersonOut, openapi_extra=allow(*ANYBODY))
def change_person(name: Annotated[Slug, Path(alias="person")], body: PersonChange, at: At) -> Response:
    """Change or erase a person's full name or address of mail: operators anybody's, everybody their own."""
    if name != at.caller.name:
        at.caller.require("operator")

    def act(session: Session) -> PersonOut:
        person = named(session, Person, name)
        given = body.model_dump(exclude={"clear"}, exclude_none=True)
        person.sqlmodel_update({**dict.fromkeys(body.clear), **given})
        session.add(person)
        session.flush()
        return person_out(person)

    return at.once(body, act, status=200)


@router.post("/tokens", status_code=201, response_model=TokenSecretOut, openapi_extra=allow(*ANYBODY))
def issue_token(body: TokenIn, at: At) -> Response:
    """Issue a token, shown this once: operators for anybody, everybody for themselves."""
    if body.person != at.caller.name:
        at.caller.require("operator")

    def act(session: Session) -> TokenSecretOut:
        person = named(session, Person, body.person)
        text, row = new_token(person.id, body.label, timedelta(days=body.days))
        session.add(row)
        return TokenSecretOut(token=text, **_token_fields(row, person.name))

    return at.once(body, act, without="token")


@router.get("/tokens", openapi_extra=allow(*ANYBODY))
def list_tokens(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[TokenOut]:
    """List tokens: operators all, everybody else their own."""
    wanted: Any = select(ApiToken, Person.name).join(Person)
    if "operator" not in at.caller.roles:
        wanted = wanted.where(col(ApiToken.person_id) == at.caller.person_id)
    with at.read() as session:
        rows = session.execute(after(wanted, col(ApiToken.id), cursor, limit)).all()
        return page([TokenOut(**_token_fields(token, name)) for token, name in rows], limit, "id")


@router.post("/tokens/{token_id}/revoke", response_model=TokenOut, openapi_extra=allow(*ANYBODY))
def revoke_token(token_id: str, at: At) -> Response:
    """Revoke a token at once: operators any, everybody else their own."""
    with at.read() as session:
        _revocable(session, at, token_id)

    def act(session: Session) -> TokenOut:
        token = _revocable(session, at, token_id)
        token.revoked_at = token.revoked_at or utcnow()
        session.add(token)
        return TokenOut(**_token_fields(token, session.get_one(Person, token.person_id).name))

    return at.once(None, act, status=200)


def _revocable(session: Session, at: Edge, token_id: str) -> ApiToken:
    """Return a token that the caller may revoke.

    Raises:
        NotFound: there is none, or it is somebody else's; the answer is the same.
    """
    token = session.get(ApiToken, token_id)
    if token is None or (token.person_id != at.caller.person_id and "operator" not in at.caller.roles):
        raise NotFound(f"no token {token_id} of yours", "`idf-compute token list` shows them")
    return token


def _token_fields(token: ApiToken, person: str) -> dict[str, Any]:
    return {
        "id": token.id,
        "person": person,
        "label": token.label,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }
