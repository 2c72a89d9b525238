"""Awards, and what is left."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.auth import project_ids, readable_project
from broker.forecasts import forecasts_out, running_or_to_come
from broker.models import Project
from broker.names import named
from broker.schemas import (
    AwardIn,
    AwardOut,
    ClassHours,
    Page,
    QuotaOut,
    Slug,
)
from quotas.amounts import period
from quotas.balances import balances_of, seconds_by_class
from quotas.models import Award, Programme
from quotas.programmes import grant_award, weights
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
READERS = ("manager", "operator", "auditor")


@router.post("/awards", status_code=201, response_model=AwardOut, openapi_extra=allow("manager"))
def create_award(body: AwardIn, at: At) -> Response:
    """Grant an award to a project, out of its programme's budget."""

    def act(session: Session) -> AwardOut:
        project = named(session, Project, body.project)
        start_at, end_at = period(body.start_on, body.end_on)
        award = grant_award(
            session,
            project_id=project.id,
            programme=session.get_one(Programme, project.programme_id),
            amount_credits=body.amount_credits,
            start_at=start_at,
            end_at=end_at,
        )
        return _awards_out(session, [award])[0]

    return at.once(body, act)


@router.get("/awards", openapi_extra=allow(*READERS))
def list_awards(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[AwardOut]:
    """List awards, oldest first."""
    with at.read() as session:
        rows = session.scalars(after(select(Award), col(Award.id), cursor, limit)).all()
        return page(_awards_out(session, rows), limit, "id")


@router.get("/quota", openapi_extra=allow(*ANYBODY))
def quota(at: At, project: Annotated[Slug | None, Query()] = None) -> QuotaOut:
    """Tell what is left of the awards that you may see, those that end first before the others."""
    with at.read() as session:
        wanted = select(Award).order_by(col(Award.end_at), col(Award.id)).limit(1000)
        own = project_ids(session, at.caller)
        if project is not None:
            own = [readable_project(session, at.caller, project).id]
        if own is not None:
            wanted = wanted.where(col(Award.project_id).in_(own))
        found = session.exec(wanted).all()
        going_on = session.exec(wanted.where(running_or_to_come(utcnow()))).all()
        return QuotaOut(awards=_awards_out(session, found), forecasts=forecasts_out(session, going_on))


def _awards_out(session: Session, awards: Any) -> list[AwardOut]:
    now = utcnow()
    classes = weights(session.connection(), now)
    balances = balances_of(session, [award.id for award in awards])
    return [_award_out(session, award, balances[award.id], classes, now) for award in awards]


def _award_out(session: Session, award: Award, balances: Any, classes: dict[str, int], now: datetime) -> AwardOut:
    return AwardOut(
        id=award.id,
        project=session.get_one(Project, award.project_id).name,
        programme=session.get_one(Programme, award.programme_id).name,
        start_at=award.start_at,
        end_at=award.end_at,
        active=award.start_at <= now < award.end_at,
        awarded_credits=award.awarded_credits,
        available_credits=balances.available,
        held_credits=balances.held,
        consumed_credits=balances.consumed,
        overrun_credits=balances.overrun,
        classes=[
            ClassHours(gpu_class=name, weight_thousandths=classes[name], available_s=seconds)
            for name, seconds in seconds_by_class(balances.available, classes).items()
        ],
    )
