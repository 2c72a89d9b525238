"""Contracts with sites, and ceilings on what is in use at one time."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from broker.api.edge import At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.errors import NotFound
from broker.models import Project, Site
from broker.names import named
from broker.queues import ceiling_use, owner_name
from broker.schemas import CeilingIn, CeilingOut, ContractIn, ContractOut, ContractReturnIn, Id, Page, SiteIn, Slug
from quotas.amounts import period
from quotas.balances import balances_of
from quotas.ceilings import Limit as Ceilings
from quotas.ceilings import lift_ceiling, set_ceiling
from quotas.contracts import give_back, open_contract
from quotas.errors import GpuClassUnknown
from quotas.models import Award, Ceiling, Contract, Programme
from quotas.programmes import weights
from storage.tables import new_id, utcnow

router = APIRouter(route_class=GuardedRoute, tags=["contracts"])
READERS = ("manager", "operator", "auditor")


@router.post("/contracts", status_code=201, response_model=ContractOut, openapi_extra=allow("manager"))
def create_contract(body: ContractIn, at: At) -> Response:
    """Enter a contract: its hours are counted with the class's weight of the contract's first day, for good."""

    def act(session: Session) -> ContractOut:
        site = named(session, Site, body.site)
        start_at, end_at = period(body.start_on, body.end_on)
        facts = body.model_dump(exclude={"site", "start_on", "end_on", "gpu_seconds"})
        weight = _weight(session, site, body, start_at)
        contract = open_contract(
            session,
            gpu_seconds=body.gpu_seconds,
            weight_thousandths=weight,
            site_id=site.id,
            start_at=start_at,
            end_at=end_at,
            **facts,
        )
        return _out(session, [contract])[0]

    return at.once(body, act)


def _weight(session: Session, site: Site, body: ContractIn, start_at: Any) -> int:
    offered = SiteIn.model_validate(site.settings).gpu_types
    if body.gpu_class not in offered:
        shown = ", ".join(sorted(offered))
        raise NotFound(f"site {site.name} has no GPU class {body.gpu_class}; it has: {shown}", f"one of: {shown}")
    weight = weights(session.connection(), start_at).get(body.gpu_class)
    if weight is None:
        raise GpuClassUnknown(
            f"GPU class {body.gpu_class} has no weight on {body.start_on}",
            f"`idf-compute class add {body.gpu_class} --weight … --from {body.start_on}`",
        )
    return weight


@router.get("/contracts", openapi_extra=allow(*READERS))
def list_contracts(
    at: At, site: Annotated[Slug | None, Query()] = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[ContractOut]:
    """List contracts, oldest first, with what is left of them."""
    with at.read() as session:
        wanted = select(Contract)
        if site is not None:
            wanted = wanted.where(Contract.site_id == named(session, Site, site).id)
        rows = session.scalars(after(wanted, col(Contract.id), cursor, limit)).all()
        return page(_out(session, rows), limit, "id")


@router.post("/contracts/{contract_id}/return", response_model=ContractOut, openapi_extra=allow("manager"))
def return_capacity(contract_id: Id, body: ContractReturnIn, at: At) -> Response:
    """Take hours out of a contract that it has left, as when they were entered by mistake."""

    def act(session: Session) -> ContractOut:
        contract = session.get(Contract, contract_id)
        if contract is None:
            raise NotFound(f"no contract {contract_id}", "`idf-compute contract list` shows them")
        give_back(session, contract, body.gpu_seconds, new_id("ret"))
        return _out(session, [contract])[0]

    return at.once(body, act, status=200)


def _out(session: Session, contracts: Any) -> list[ContractOut]:
    now = utcnow()
    balances = balances_of(session, [contract.id for contract in contracts])
    sites = dict(session.execute(select(Site.id, Site.name)).all())
    shown = set(ContractOut.model_fields) & set(Contract.model_fields)
    return [
        ContractOut(
            **contract.model_dump(include=shown),
            site=sites[contract.site_id],
            active=contract.start_at <= now < contract.end_at,
            gpu_seconds=contract.capacity_credits // contract.weight_thousandths,
            available_gpu_seconds=balances[contract.id].available // contract.weight_thousandths,
            held_gpu_seconds=balances[contract.id].held // contract.weight_thousandths,
            consumed_gpu_seconds=balances[contract.id].consumed // contract.weight_thousandths,
            overrun_gpu_seconds=balances[contract.id].overrun // contract.weight_thousandths,
        )
        for contract in contracts
    ]


@router.post("/ceilings", response_model=CeilingOut, openapi_extra=allow("manager", "operator"))
def change_ceiling(body: CeilingIn, at: At) -> Response:
    """Set or lift a ceiling; what is in use already goes on."""

    def act(session: Session) -> CeilingOut:
        scope_id = _scope_id(session, body)
        if body.amount is None:
            if not lift_ceiling(session, body.scope, scope_id, body.what):
                raise NotFound(
                    f"{body.scope} {body.name} has no such ceiling", "`idf-compute quota ceilings` shows them"
                )
            return CeilingOut(
                scope=body.scope, name=body.name, what=body.what, amount=None, in_use=None, in_use_unknown=None
            )
        ceiling = Ceilings(body.scope, scope_id, body.what, body.amount)
        return _ceiling_out(session, set_ceiling(session, ceiling, at.caller.person_id))

    return at.once(body, act, status=200)


def _scope_id(session: Session, body: CeilingIn) -> str:
    if body.scope == "award":
        if session.get(Award, body.name) is None:
            raise NotFound(f"no award {body.name}", "`idf-compute award list` shows them")
        return body.name
    models: dict[str, Any] = {"project": Project, "programme": Programme, "site": Site}
    found: str = named(session, models[body.scope], body.name).id
    return found


@router.get("/ceilings", openapi_extra=allow(*READERS))
def list_ceilings(at: At) -> Page[CeilingOut]:
    """List all ceilings with what is in use under them."""
    with at.read() as session:
        order = (col(Ceiling.scope), col(Ceiling.scope_id), col(Ceiling.what))
        rows = session.exec(select(Ceiling).order_by(*order).limit(10_000)).all()
        return Page(items=[_ceiling_out(session, row) for row in rows])


def _ceiling_out(session: Session, ceiling: Ceiling) -> CeilingOut:
    limit = Ceilings(ceiling.scope, ceiling.scope_id, ceiling.what, ceiling.amount)  # type: ignore[arg-type]
    in_use = ceiling_use(session, limit)
    return CeilingOut(
        scope=ceiling.scope,
        name=owner_name(session.connection(), limit),
        what=ceiling.what,
        amount=ceiling.amount,
        in_use=in_use,
        in_use_unknown="nothing is stored by this release" if in_use is None else None,
    )
