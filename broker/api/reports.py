"""Reports over usage and ledger."""

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlmodel import Session, col, select

from accounting.reports import GpuUse, Period, gpu_use, ledger_says
from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.auth import project_ids
from broker.errors import BadRequest
from broker.models import Project, Site
from broker.schemas import GpuReportOut, GpuReportRow
from quotas.amounts import period
from quotas.models import Programme

router = APIRouter(route_class=GuardedRoute, tags=["reports"])


@router.get("/reports/gpu", openapi_extra=allow(*ANYBODY))
def gpu_report(
    at: At,
    from_on: Annotated[date, Query(alias="from", description="First day, Europe/Paris")],
    to_on: Annotated[date, Query(alias="to", description="Last day, included")],
    by: Annotated[Literal["project", "programme", "site"], Query()] = "project",
) -> GpuReportOut:
    """Sum up attempts that ended in a span of days, and hold the sum against the ledger's own."""
    if to_on < from_on or to_on.year > 9000 or from_on.year < 1900:
        raise BadRequest(
            f"the last day {to_on} must not lie before the first {from_on}, between 1900 and 9000",
            "swap them",
        )
    start_at, end_at = period(from_on, to_on)
    with at.read() as session:
        wanted = Period(start_at, end_at, project_ids(session, at.caller))
        use = gpu_use(session, wanted, by)
        names = _names(session, by, [row.owner_id for row in use])
        ledger = ledger_says(session, wanted)
    charged = sum(row.charged_credits for row in use)
    refunded = sum(row.refunded_credits for row in use)
    return GpuReportOut(
        by=by,
        from_on=from_on,
        to_on=to_on,
        rows=[_row(row, names[row.owner_id]) for row in use],
        gpu_seconds=sum(row.gpu_seconds for row in use),
        charged_credits=charged,
        overrun_credits=sum(row.overrun_credits for row in use),
        refunded_credits=refunded,
        ledger_credits=ledger.charged,
        ledger_refunded_credits=ledger.refunded,
        agrees=(charged, refunded) == (ledger.charged, ledger.refunded),
    )


def _names(session: Session, by: str, ids: list[str]) -> dict[str, str]:
    model: Any = {"project": Project, "programme": Programme, "site": Site}[by]
    rows = session.execute(select(model.id, model.name).where(col(model.id).in_(ids)))
    return {row[0]: row[1] for row in rows}


def _row(use: GpuUse, name: str) -> GpuReportRow:
    figures = ("jobs", "attempts", "gpu_seconds", "charged_credits", "overrun_credits", "refunds", "refunded_credits")
    value = use.value if use.attempts == 0 or use.unvalued_attempts < use.attempts else None
    back = use.refunded_value if use.refunds == 0 or use.unvalued_refunds < use.refunds else None
    return GpuReportRow(
        key=name,
        **{figure: getattr(use, figure) for figure in figures},
        value_micro_euros=value.value if value else None,
        region_micro_euros=value.region if value else None,
        company_micro_euros=value.company if value else None,
        partner_micro_euros=value.partner if value else None,
        unvalued_attempts=use.unvalued_attempts,
        refunded_value_micro_euros=back.value if back else None,
        refunded_company_micro_euros=back.company if back else None,
        unvalued_refunds=use.unvalued_refunds,
    )
