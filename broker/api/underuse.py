"""Forecasts of awards, and the reclaim of what lies unused: announced, justified, decided."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, Edge, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.auth import project_ids, project_role, readable_project
from broker.awarding import actor, visible_award
from broker.errors import NotAllowed
from broker.forecasts import forecasts_out, names_of, running_or_to_come
from broker.models import Person, Project
from broker.names import named
from broker.schemas import (
    ForecastOut,
    JustificationDecisionIn,
    JustificationIn,
    Page,
    ReclaimOut,
    Slug,
)
from broker.underuse import tell_decided, tell_justified
from quotas.models import Award, Programme, ReclaimNotice
from quotas.reclaims import decide, justify
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
OfProject = Annotated[Slug | None, Query()]


@router.get("/forecasts", openapi_extra=allow(*ANYBODY))
def list_forecasts(
    at: At,
    project: OfProject = None,
    programme: OfProject = None,
    at_risk: Annotated[
        bool, Query(description="Only awards that somebody should look at; a page may be short")
    ] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ForecastOut]:
    """Tell what becomes of the granted awards that have not ended, oldest first."""
    with at.read() as session:
        wanted = _restricted(session, at, select(Award).where(running_or_to_come(utcnow())), project)
        if programme is not None:
            wanted = wanted.where(col(Award.programme_id) == named(session, Programme, programme).id)
        rows = session.scalars(after(wanted, col(Award.id), cursor, limit)).all()
        # A page is cut before those at risk are picked, so that its cursor is right.
        shown = page(forecasts_out(session, rows), limit, "award")
        if at_risk:
            shown.items = [item for item in shown.items if item.risks]
        return shown


@router.get("/reclaims", openapi_extra=allow(*ANYBODY))
def list_reclaims(
    at: At,
    project: OfProject = None,
    due: Annotated[bool, Query(description="Only those that are still to come")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ReclaimOut]:
    """List what was announced to go back, oldest first."""
    with at.read() as session:
        wanted = select(ReclaimNotice).join(Award, col(Award.id) == col(ReclaimNotice.award_id))
        wanted = _restricted(session, at, wanted, project)
        if due:
            wanted = wanted.where(col(ReclaimNotice.ended_at).is_(None))
        rows = session.scalars(after(wanted, col(ReclaimNotice.id), cursor, limit)).all()
        return page(_reclaims_out(session, rows), limit, "id")


@router.post("/awards/{award_id}/justification", response_model=ReclaimOut, openapi_extra=allow("engineer"))
def justify_award(award_id: str, body: JustificationIn, at: At) -> Response:
    """Say, as a lead, why an award that lies unused must keep its credits; a manager decides."""

    def allowed(session: Session) -> None:
        award = visible_award(session, at.caller, award_id)
        if project_role(session, at.caller, award.project_id) != "lead":
            raise NotAllowed("a lead of the project justifies it", "ask a lead of the project")

    def act(session: Session) -> ReclaimOut:
        notice = justify(session, award_id, body.text, actor(at.caller), utcnow())
        tell_justified(session, notice)
        return _reclaims_out(session, [notice])[0]

    with at.read() as session:
        allowed(session)
    return at.once(body, act, status=200)


@router.post("/awards/{award_id}/justification/accept", response_model=ReclaimOut, openapi_extra=allow("manager"))
def accept_justification(award_id: str, body: JustificationDecisionIn, at: At) -> Response:
    """Accept why an award lies unused: everything stays with it."""
    return _decide(award_id, body, at, accepted=True)


@router.post("/awards/{award_id}/justification/refuse", response_model=ReclaimOut, openapi_extra=allow("manager"))
def refuse_justification(award_id: str, body: JustificationDecisionIn, at: At) -> Response:
    """Refuse why an award lies unused: the reclaim takes its course."""
    return _decide(award_id, body, at, accepted=False)


def _decide(award_id: str, body: JustificationDecisionIn, at: Edge, *, accepted: bool) -> Response:
    def act(session: Session) -> ReclaimOut:
        now = utcnow()
        notice = decide(session, award_id, body.reason, actor(at.caller), now, accepted=accepted)
        tell_decided(session, notice, now)
        return _reclaims_out(session, [notice])[0]

    return at.once(body, act, status=200)


def _restricted(session: Session, at: Edge, wanted: Any, project: str | None) -> Any:
    """Restrict a query over awards to one project, or to those that the caller may see."""
    own = project_ids(session, at.caller)
    if project is not None:
        own = [readable_project(session, at.caller, project).id]
    return wanted if own is None else wanted.where(col(Award.project_id).in_(own))


def _reclaims_out(session: Session, notices: Sequence[ReclaimNotice]) -> list[ReclaimOut]:
    awards = select(Award.id, Award.project_id).where(col(Award.id).in_({n.award_id for n in notices}))
    project_of = dict(session.exec(awards).all())
    projects = names_of(session, Project, project_of.values())
    people = names_of(session, Person, {id_ for n in notices for id_ in (n.justified_by, n.decided_by) if id_})
    return [
        ReclaimOut(
            **notice.model_dump(exclude={"award_id", "justified_by", "decided_by"}),
            award=notice.award_id,
            project=projects[project_of[notice.award_id]],
            justified_by=people.get(notice.justified_by or ""),
            decided_by=people.get(notice.decided_by or ""),
        )
        for notice in notices
    ]
