"""Programmes."""

from datetime import datetime

from fastapi import APIRouter, Response
from sqlmodel import Session, col, select

from broker.api.edge import At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.names import check_free, named
from broker.schemas import (
    BudgetIn,
    BudgetOut,
    Page,
    PolicyChange,
    PolicyPlanOut,
    ProgrammeIn,
    ProgrammeOut,
    SharesIn,
    SharesOut,
    Slug,
)
from quotas.amounts import day_start, period
from quotas.models import FundingShare, Programme, ProgrammeBudget, ProgrammePolicyVersion
from quotas.policy import ProgrammePolicy
from quotas.programmes import (
    SharesWanted,
    add_budget,
    add_shares,
    budgets_of,
    change_policy,
    open_programme,
    policy_of,
    policy_version,
    shares_of,
    unawarded_credits,
)
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
READERS = ("manager", "operator", "auditor")


@router.post("/programmes", status_code=201, response_model=ProgrammeOut, openapi_extra=allow("manager"))
def create_programme(body: ProgrammeIn, at: At) -> Response:
    """Open a programme with its policy, budgets and shares."""

    def act(session: Session) -> ProgrammeOut:
        check_free(session, Programme, body.name)
        opened = open_programme(
            session,
            name=body.name,
            policy=body.policy(),
            budgets=[(*period(budget.start_on, budget.end_on), budget.credits) for budget in body.budgets],
            shares=[_shares_wanted(shares) for shares in body.shares],
            entered_by=at.caller.person_id,
        )
        return programme_out(session, opened)

    return at.once(body, act)


@router.get("/programmes", openapi_extra=allow(*READERS))
def list_programmes(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[ProgrammeOut]:
    """List programmes by name, with what is left to award."""
    with at.read() as session:
        rows = session.scalars(after(select(Programme), col(Programme.name), cursor, limit)).all()
        return page([programme_out(session, row) for row in rows], limit, "name")


@router.get("/programmes/{name}", openapi_extra=allow(*READERS))
def show_programme(name: Slug, at: At) -> ProgrammeOut:
    """Show a programme."""
    with at.read() as session:
        return programme_out(session, named(session, Programme, name))


@router.post("/programmes/{name}/policy", response_model=ProgrammeOut, openapi_extra=allow("manager"))
def set_policy(name: Slug, body: ProgrammePolicy, at: At) -> Response:
    """Put a new policy in force; the one before it is kept."""

    def act(session: Session) -> ProgrammeOut:
        programme = named(session, Programme, name)
        change_policy(session, programme, body, entered_by=at.caller.person_id)
        return programme_out(session, programme)

    return at.once(body, act, status=200)


@router.post("/programmes/{name}/policy/plan", response_model=PolicyPlanOut, openapi_extra=allow("manager"))
def plan_policy(name: Slug, body: ProgrammePolicy, at: At) -> PolicyPlanOut:
    """Say what a new policy would change, without putting it in force."""
    at.question(body)
    with at.read() as session:
        before = policy_of(named(session, Programme, name)).model_dump(mode="json")
    after = body.model_dump(mode="json")
    changed = [field for field in after if after[field] != before[field]]
    return PolicyPlanOut(
        changes=[PolicyChange(name=field, before=before[field], after=after[field]) for field in changed]
    )


@router.post("/programmes/{name}/budgets", status_code=201, response_model=ProgrammeOut, openapi_extra=allow("manager"))
def fund_programme(name: Slug, body: BudgetIn, at: At) -> Response:
    """Fund a programme for a further period, or add to the budget of the very same one."""

    def act(session: Session) -> ProgrammeOut:
        programme = named(session, Programme, name)
        add_budget(session, programme, *period(body.start_on, body.end_on), body.credits)
        return programme_out(session, programme)

    return at.once(body, act)


@router.post("/programmes/{name}/shares", status_code=201, response_model=ProgrammeOut, openapi_extra=allow("manager"))
def change_shares(name: Slug, body: SharesIn, at: At) -> Response:
    """Change who pays which share from a day on that is still to come."""

    def act(session: Session) -> ProgrammeOut:
        programme = named(session, Programme, name)
        add_shares(session, programme, _shares_wanted(body), entered_by=at.caller.person_id)
        return programme_out(session, programme)

    return at.once(body, act)


def _shares_wanted(body: SharesIn) -> SharesWanted:
    return (
        day_start(body.valid_from), body.region_thousandths, body.company_thousandths, body.partner_thousandths
    )  # fmt: skip


def programme_out(session: Session, programme: Programme) -> ProgrammeOut:
    """Show a programme from its rows."""
    now = utcnow()
    version = policy_version(session, programme.id)
    budgets = [_budget_out(session, budget) for budget in budgets_of(session, programme.id)]
    return ProgrammeOut(
        id=programme.id,
        name=programme.name,
        kind=programme.kind,
        policy=policy_of(programme),
        policy_version=version,
        policy_since=session.get_one(ProgrammePolicyVersion, (programme.id, version)).at,
        budgets=budgets,
        shares=[_shares_out(row) for row in shares_of(session, programme.id)],
        unawarded_credits=_unawarded_now(budgets, now),
        created_at=programme.created_at,
    )


def _budget_out(session: Session, budget: ProgrammeBudget) -> BudgetOut:
    left = unawarded_credits(session, budget.id)
    return BudgetOut(
        id=budget.id,
        start_at=budget.start_at,
        end_at=budget.end_at,
        budget_credits=budget.budget_credits,
        awarded_credits=budget.budget_credits - left,
        unawarded_credits=left,
    )


def _unawarded_now(budgets: list[BudgetOut], now: datetime) -> int | None:
    return next((budget.unawarded_credits for budget in budgets if budget.start_at <= now < budget.end_at), None)


def _shares_out(row: FundingShare) -> SharesOut:
    return SharesOut(
        valid_from=row.valid_from,
        region_thousandths=row.region_thousandths,
        company_thousandths=row.company_thousandths,
        partner_thousandths=row.partner_thousandths,
    )
