"""Refunds: ask for one, approve it, refuse it."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from accounting.refunds import RefundWanted, approve_refund, refuse_refund, request_refund
from broker.api.edge import At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.errors import NotFound
from broker.models import Job, Person, Project
from broker.schemas import Id, Page, RefundIn, RefundOut, RefusalIn
from quotas.amounts import CREDITS_PER_HOUR
from quotas.errors import RefundTooEarly
from quotas.models import Refund
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
READERS = ("manager", "operator", "auditor")


@router.post("/refunds", status_code=201, response_model=RefundOut, openapi_extra=allow("manager", "operator"))
def ask_for_refund(body: RefundIn, at: At) -> Response:
    """Ask for credits of a job to be given back; a manager's own is posted at once up to a bound."""
    bound = at.services.settings.refund_alone_max_hours * CREDITS_PER_HOUR

    def act(session: Session) -> RefundOut:
        job = session.get(Job, body.job_id)
        if job is None:
            raise NotFound(f"no job {body.job_id}", "`idf-compute jobs` shows those that you may see")
        if job.array_words is not None and job.settled_at is None:
            raise RefundTooEarly(f"tasks of the array {job.id} are still open", "wait until it is settled")
        wanted = RefundWanted(
            job_id=job.id,
            award_id=job.award_id,
            project_id=job.project_id,
            programme_id=job.programme_id,
            site_id=job.site_id,
            reason=body.reason,
            evidence=body.evidence,
            amount=body.amount_credits,
            with_contract=body.with_contract,
        )
        alone_max = bound if "manager" in at.caller.roles else 0
        return refunds_out(session, [request_refund(session, wanted, at.caller.person_id, alone_max, utcnow())])[0]

    return at.once(body, act)


@router.get("/refunds", openapi_extra=allow(*READERS))
def list_refunds(
    at: At,
    job: Annotated[Id | None, Query()] = None,
    state: Annotated[Literal["requested", "posted", "refused"] | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[RefundOut]:
    """List refunds, newest first."""
    wanted = select(Refund)
    if job is not None:
        wanted = wanted.where(Refund.job_id == job)
    if state is not None:
        wanted = wanted.where(Refund.state == state)
    with at.read() as session:
        rows = session.scalars(after(wanted, col(Refund.id), cursor, limit, newest_first=True)).all()
        return page(refunds_out(session, rows), limit, "id")


@router.post("/refunds/{refund_id}/approve", response_model=RefundOut, openapi_extra=allow("manager"))
def approve(refund_id: str, at: At) -> Response:
    """Approve a refund that somebody else asked for; it is posted then."""

    def act(session: Session) -> RefundOut:
        _known(session, refund_id)
        return refunds_out(session, [approve_refund(session, refund_id, at.caller.person_id, utcnow())])[0]

    return at.once(None, act, status=200)


@router.post("/refunds/{refund_id}/refuse", response_model=RefundOut, openapi_extra=allow("manager"))
def refuse(refund_id: str, body: RefusalIn, at: At) -> Response:
    """Refuse a refund, with the reason."""

    def act(session: Session) -> RefundOut:
        _known(session, refund_id)
        return refunds_out(session, [refuse_refund(session, refund_id, at.caller.person_id, body.why, utcnow())])[0]

    return at.once(body, act, status=200)


def _known(session: Session, refund_id: str) -> None:
    if session.get(Refund, refund_id) is None:
        raise NotFound(f"no refund {refund_id}", "`idf-compute refund list` lists them")


def refunds_out(session: Session, rows: Sequence[Refund]) -> list[RefundOut]:
    """Word refunds with the names of people and projects."""
    people = _names(session, Person, {id_ for row in rows for id_ in (row.requested_by, row.decided_by)})
    projects = _names(session, Project, {row.project_id for row in rows})
    same = set(RefundOut.model_fields) - {"project", "requested_by", "decided_by"}
    return [
        RefundOut(
            **row.model_dump(include=same),
            project=projects[row.project_id],
            requested_by=people[row.requested_by] if row.requested_by else None,
            decided_by=people[row.decided_by] if row.decided_by else None,
        )
        for row in rows
    ]


def _names(session: Session, model: Any, ids: set[Any]) -> dict[str, str]:
    rows = session.execute(select(model.id, model.name).where(col(model.id).in_(ids - {None})))
    return {row[0]: row[1] for row in rows}
