"""Programmes."""

from fastapi import APIRouter, Response
from sqlmodel import Session, col, select

from broker.api.edge import At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.names import check_free
from broker.schemas import (
    Page,
    ProgrammeIn,
    ProgrammeOut,
)
from quotas.models import Programme
from quotas.programmes import open_programme, unawarded_credits

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
READERS = ("manager", "operator", "auditor")


@router.post("/programmes", status_code=201, response_model=ProgrammeOut, openapi_extra=allow("manager"))
def create_programme(body: ProgrammeIn, at: At) -> Response:
    """Open a programme and fund it."""

    def act(session: Session) -> ProgrammeOut:
        check_free(session, Programme, body.name)
        return _programme_out(session, open_programme(session, **body.model_dump()))

    return at.once(body, act)


@router.get("/programmes", openapi_extra=allow(*READERS))
def list_programmes(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[ProgrammeOut]:
    """List programmes by name, with what is left to award."""
    with at.read() as session:
        rows = session.scalars(after(select(Programme), col(Programme.name), cursor, limit)).all()
        return page([_programme_out(session, row) for row in rows], limit, "name")


def _programme_out(session: Session, programme: Programme) -> ProgrammeOut:
    return ProgrammeOut(
        id=programme.id,
        name=programme.name,
        kind=programme.kind,
        default_time_limit_s=programme.default_time_limit_s,
        unawarded_credits=unawarded_credits(session, programme.id),
        created_at=programme.created_at,
    )
