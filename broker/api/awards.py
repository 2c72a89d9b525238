"""Awards: asked for, reviewed, granted, changed, closed; and what is left."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker import awarding
from broker.api.edge import ANYBODY, At, Edge, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.auth import project_ids, readable_project
from broker.award_import import import_awards
from broker.award_views import award_detail, awards_out, changes_out, events_out
from broker.awarding import actor, visible_award, visible_change
from broker.expiry import end_jobs
from broker.forecasts import forecasts_out
from broker.schemas import (
    ApproveIn,
    AwardChangeOut,
    AwardDetail,
    AwardEventOut,
    AwardIn,
    AwardOut,
    CommentIn,
    ExtensionIn,
    ImportIn,
    ImportOut,
    OutcomeIn,
    Page,
    QuotaOut,
    ReasonIn,
    Slug,
    SupplementIn,
    TransferIn,
)
from quotas import award_changes, awards
from quotas.award_life import AwardState, ChangeState
from quotas.models import Award, AwardChange, AwardEvent
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
ASKERS = ("engineer", "manager")


@router.post("/awards", status_code=201, response_model=AwardOut, openapi_extra=allow("manager"))
def create_award(body: AwardIn, at: At) -> Response:
    """Grant an award to a project, out of its programme's budget: request and approval in one.

    Where two managers must approve, it is in review until the second does.
    """

    def act(session: Session) -> AwardOut:
        return _one(session, awarding.grant(session, at.caller, body, utcnow(), at.aid_rules))

    return at.once(body, act)


@router.post("/awards/request", status_code=201, response_model=AwardOut, openapi_extra=allow(*ASKERS))
def request_award(body: AwardIn, at: At) -> Response:
    """Ask for an award for a project of yours; a manager for any project."""
    with at.read() as session:
        awarding.check_may_request(session, at.caller, body.project)
    return at.once(body, lambda session: _one(session, awarding.request(session, at.caller, body, utcnow())))


@router.post("/awards/import", status_code=201, response_model=ImportOut, openapi_extra=allow("manager"))
def import_cohort(body: ImportIn, at: At) -> Response:
    """Grant the awards of a CSV file, with the organisations, projects and people that are new: all or none."""
    return at.once(body, lambda session: import_awards(session, at.caller, body, utcnow(), at.aid_rules))


@router.get("/awards", openapi_extra=allow(*ANYBODY))
def list_awards(
    at: At,
    project: Annotated[Slug | None, Query()] = None,
    state: Annotated[AwardState | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AwardOut]:
    """List awards, oldest first: those of your projects, or all for a role that sees all."""
    with at.read() as session:
        wanted = select(Award)
        own = _own(session, at, project)
        if own is not None:
            wanted = wanted.where(col(Award.project_id).in_(own))
        if state is not None:
            wanted = wanted.where(col(Award.state) == state.value)
        rows = session.scalars(after(wanted, col(Award.id), cursor, limit)).all()
        return page(awards_out(session, rows), limit, "id")


@router.get("/awards/{award_id}", openapi_extra=allow(*ANYBODY))
def show_award(award_id: str, at: At) -> AwardDetail:
    """Show an award with its whole story: steps, changes, approvals, outcome."""
    with at.read() as session:
        return award_detail(session, visible_award(session, at.caller, award_id))


@router.get("/awards/{award_id}/events", openapi_extra=allow(*ANYBODY))
def list_events(award_id: str, at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[AwardEventOut]:
    """List the steps of an award's story, oldest first."""
    with at.read() as session:
        award = visible_award(session, at.caller, award_id)
        wanted = select(AwardEvent).where(col(AwardEvent.award_id) == award.id)
        rows = session.scalars(after(wanted, col(AwardEvent.id), cursor, limit, numbered=True)).all()
        return page(events_out(session, rows), limit, "id")


@router.post("/awards/{award_id}/comments", status_code=201, response_model=AwardOut, openapi_extra=allow(*ASKERS))
def comment(award_id: str, body: CommentIn, at: At) -> Response:
    """Say something about an award; one that was only requested is in review from then."""
    _check_may_ask(at, award_id)
    return at.once(
        body, lambda session: _one(session, awards.comment(session, award_id, body.text, actor(at.caller), utcnow()))
    )


@router.post("/awards/{award_id}/approve", response_model=AwardOut, openapi_extra=allow("manager"))
def approve(award_id: str, body: ApproveIn, at: At) -> Response:
    """Approve a request, on its own terms or on others; once enough managers did, it is granted."""
    return at.once(
        body,
        lambda session: _one(session, awarding.approve(session, at.caller, award_id, body, utcnow(), at.aid_rules)),
        status=200,
    )


@router.post("/awards/{award_id}/refuse", response_model=AwardOut, openapi_extra=allow("manager"))
def refuse(award_id: str, body: ReasonIn, at: At) -> Response:
    """Refuse a request, with a reason."""
    return at.once(
        body,
        lambda session: _one(session, awards.refuse(session, award_id, body.reason, actor(at.caller), utcnow())),
        status=200,
    )


@router.post("/awards/{award_id}/withdraw", response_model=AwardOut, openapi_extra=allow(*ASKERS))
def withdraw(award_id: str, body: ReasonIn, at: At) -> Response:
    """Take a request back."""
    _check_may_ask(at, award_id)
    return at.once(
        body,
        lambda session: _one(session, awards.withdraw(session, award_id, body.reason, actor(at.caller), utcnow())),
        status=200,
    )


@router.post(
    "/awards/{award_id}/supplements", status_code=201, response_model=AwardChangeOut, openapi_extra=allow(*ASKERS)
)
def ask_supplement(award_id: str, body: SupplementIn, at: At) -> Response:
    """Ask for more credits; a manager's own wish is decided at once, unless two must approve it."""
    return _ask(
        at,
        award_id,
        body,
        lambda session: award_changes.ask_supplement(
            session, award_id, body.amount_credits, body.reason, actor(at.caller), utcnow()
        ),
    )


@router.post(
    "/awards/{award_id}/extensions", status_code=201, response_model=AwardChangeOut, openapi_extra=allow(*ASKERS)
)
def ask_extension(award_id: str, body: ExtensionIn, at: At) -> Response:
    """Ask for a later end; jobs that are submitted already keep the deadline that they were sent with."""
    return _ask(
        at,
        award_id,
        body,
        lambda session: award_changes.ask_extension(
            session, award_id, body.end_on, body.reason, actor(at.caller), utcnow()
        ),
    )


@router.post(
    "/awards/{award_id}/transfers", status_code=201, response_model=AwardChangeOut, openapi_extra=allow(*ASKERS)
)
def ask_transfer(award_id: str, body: TransferIn, at: At) -> Response:
    """Ask that available credits go to another award of the same programme."""
    return _ask(
        at,
        award_id,
        body,
        lambda session: award_changes.ask_transfer(
            session, award_id, body.to_award, body.amount_credits, body.reason, actor(at.caller), utcnow()
        ),
    )


@router.post("/awards/{award_id}/close", response_model=AwardDetail, openapi_extra=allow(*ASKERS))
def close(award_id: str, body: OutcomeIn, at: At) -> Response:
    """Answer the five questions on an award's outcome, and ask for its end where it still runs.

    Once granted, its jobs are cancelled, what is left goes back, and it is closed when the last job is settled.
    """

    _check_may_ask(at, award_id)

    def act(session: Session) -> AwardDetail:
        award = session.get_one(Award, award_id)
        awarding.close(session, at.caller, award, body, utcnow(), at.aid_rules)
        return award_detail(session, award)

    answer = at.once(body, act, status=200)
    end_jobs(at.services, utcnow(), award_id)
    return answer


@router.get("/award-changes", openapi_extra=allow(*ANYBODY))
def list_changes(
    at: At,
    state: Annotated[ChangeState | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AwardChangeOut]:
    """List changes that were asked for, oldest first: of your projects' awards, or all for a role that sees all."""
    with at.read() as session:
        wanted = select(AwardChange)
        own = _own(session, at, None)
        if own is not None:
            wanted = wanted.where(col(AwardChange.award_id).in_(select(Award.id).where(col(Award.project_id).in_(own))))
        if state is not None:
            wanted = wanted.where(col(AwardChange.state) == state.value)
        rows = session.scalars(after(wanted, col(AwardChange.id), cursor, limit)).all()
        return page(changes_out(session, rows), limit, "id")


@router.post("/award-changes/{change_id}/approve", response_model=AwardChangeOut, openapi_extra=allow("manager"))
def approve_change(change_id: str, at: At) -> Response:
    """Approve a change; once enough managers did, it is carried out."""
    answer = at.once(
        None,
        lambda session: _change(
            session, awarding.approve_change(session, at.caller, change_id, utcnow(), at.aid_rules)
        ),
        status=200,
    )
    with at.read() as session:
        award_id = session.get_one(AwardChange, change_id).award_id
    end_jobs(at.services, utcnow(), award_id)
    return answer


@router.post("/award-changes/{change_id}/refuse", response_model=AwardChangeOut, openapi_extra=allow("manager"))
def refuse_change(change_id: str, body: ReasonIn, at: At) -> Response:
    """Refuse a change, with a reason."""
    return at.once(
        body,
        lambda session: _change(
            session, award_changes.refuse_change(session, change_id, body.reason, actor(at.caller), utcnow())
        ),
        status=200,
    )


@router.post("/award-changes/{change_id}/withdraw", response_model=AwardChangeOut, openapi_extra=allow(*ASKERS))
def withdraw_change(change_id: str, body: ReasonIn, at: At) -> Response:
    """Take back a change that was asked for."""
    with at.read() as session:
        visible_change(session, at.caller, change_id)

    def act(session: Session) -> AwardChangeOut:
        by = actor(at.caller)
        return _change(session, award_changes.withdraw_change(session, change_id, body.reason, by, utcnow()))

    return at.once(body, act, status=200)


@router.get("/quota", openapi_extra=allow(*ANYBODY))
def quota(at: At, project: Annotated[Slug | None, Query()] = None) -> QuotaOut:
    """Tell what is left of the granted awards that you may see, those that end first before the others."""
    with at.read() as session:
        shown = [AwardState.ACTIVE.value, AwardState.EXPIRING.value]
        wanted = select(Award).where(col(Award.state).in_(shown)).order_by(col(Award.end_at), col(Award.id))
        own = _own(session, at, project)
        if own is not None:
            wanted = wanted.where(col(Award.project_id).in_(own))
        found = session.exec(wanted.limit(1000)).all()
        going_on = [award for award in found if award.state == AwardState.ACTIVE.value and award.end_at > utcnow()]
        return QuotaOut(awards=awards_out(session, found), forecasts=forecasts_out(session, going_on))


def _own(session: Session, at: Edge, project: str | None) -> list[str] | None:
    """Return the projects whose awards are meant; None: all."""
    if project is not None:
        return [readable_project(session, at.caller, project).id]
    return project_ids(session, at.caller)


def _check_may_ask(at: Edge, award_id: str) -> None:
    with at.read() as session:
        visible_award(session, at.caller, award_id, to_ask=True)


def _ask(
    at: Edge,
    award_id: str,
    body: SupplementIn | ExtensionIn | TransferIn,
    ask: Callable[[Session], AwardChange],
) -> Response:
    """Ask for a change, and decide it where the caller may."""
    _check_may_ask(at, award_id)
    return at.once(
        body,
        lambda session: _change(session, awarding.ask_change(session, at.caller, ask(session), utcnow(), at.aid_rules)),
    )


def _one(session: Session, award: Award) -> AwardOut:
    session.flush()
    return awards_out(session, [award])[0]


def _change(session: Session, change: AwardChange) -> AwardChangeOut:
    session.flush()
    return changes_out(session, [change])[0]
