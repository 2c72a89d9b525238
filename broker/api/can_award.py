"""Can this still be awarded?"""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from sqlmodel import Session

from broker.api.edge import At, GuardedRoute, allow
from broker.errors import BadRequest
from broker.models import Project, Site
from broker.names import named
from broker.schemas import BudgetLeftOut, CanAwardOut, CapacityLeftOut, Credits, Day, GpuClassName, RefusalOut, Slug
from quotas.amounts import PARIS
from quotas.can_award import BudgetLeft, CanAward, CapacityLeft, Wanted, can_award
from quotas.models import Programme
from quotas.policy import months_after
from quotas.programmes import policy_of
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
READERS = ("manager", "operator", "auditor")
MONTHS_UNLESS_BOUNDED = 12


@router.get("/can-award", openapi_extra=allow(*READERS))
def answer(
    at: At,
    amount_credits: Annotated[Credits, Query()],
    programme: Annotated[Slug | None, Query()] = None,
    project: Annotated[Slug | None, Query()] = None,
    site: Annotated[Slug | None, Query()] = None,
    gpu_class: Annotated[GpuClassName | None, Query()] = None,
    start_on: Annotated[Day | None, Query(description="Default: today in Paris")] = None,
    end_on: Annotated[Day | None, Query(description="Default: as long as the policy allows, else 12 months")] = None,
) -> CanAwardOut:
    """Say whether an award could be granted, from policy, budgets, holds and contracts, and which of them binds."""
    with at.read() as session:
        owner, own = _programme(session, programme, project)
        first = start_on or utcnow().astimezone(PARIS).date()
        wanted = Wanted(
            credits=amount_credits,
            start_on=first,
            end_on=_last_day(owner, first, end_on),
            programme=owner,
            project_id=own.id if own else None,
            data_class=(own.confidentiality, own.nature) if own else None,
            site_id=named(session, Site, site).id if site else None,
            gpu_class=gpu_class,
        )
        return _out(session, wanted, can_award(session, wanted))


def _programme(session: Session, name: str | None, project: str | None) -> tuple[Programme | None, Project | None]:
    owner = named(session, Programme, name) if name else None
    if project is None:
        return owner, None
    own = named(session, Project, project)
    belongs_to = session.get_one(Programme, own.programme_id)
    if owner is not None and owner.id != belongs_to.id:
        raise BadRequest(f"project {project} belongs to programme {belongs_to.name}", "leave --programme out")
    return belongs_to, own


def _last_day(owner: Programme | None, first: date, end_on: date | None) -> date:
    if end_on is None:
        longest = policy_of(owner).longest_months if owner else None
        return months_after(first, longest or MONTHS_UNLESS_BOUNDED)
    if end_on < first:
        raise BadRequest(f"the last day {end_on} is before the first, {first}", "give a later --to")
    return end_on


def _out(session: Session, wanted: Wanted, found: CanAward) -> CanAwardOut:
    start_at, end_at = wanted.period
    return CanAwardOut(
        can_award=not found.refusals,
        asked_credits=wanted.credits,
        start_at=start_at,
        end_at=end_at,
        binds=found.binds,
        largest_credits=found.largest if found.largest > 0 else None,
        refusals=[RefusalOut(side=each.side, detail=each.detail, remedy=each.remedy) for each in found.refusals],
        budget_left_credits=found.budget_left,
        budgets=[_budget_out(budget) for budget in found.budgets],
        promised_credits=found.promised,
        capacity_left_credits=found.capacity_left,
        contracts=[_capacity_out(session, contract) for contract in found.contracts],
    )


def _budget_out(budget: BudgetLeft) -> BudgetLeftOut:
    return BudgetLeftOut(
        programme=budget.programme,
        id=budget.budget_id,
        start_at=budget.start_at,
        end_at=budget.end_at,
        unawarded_credits=budget.left,
    )


def _capacity_out(session: Session, contract: CapacityLeft) -> CapacityLeftOut:
    return CapacityLeftOut(
        id=contract.contract_id,
        site=session.get_one(Site, contract.site_id).name,
        gpu_class=contract.gpu_class,
        start_at=contract.start_at,
        end_at=contract.end_at,
        left_credits=contract.left,
        held_credits=contract.held,
    )
