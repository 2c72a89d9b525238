"""GPU classes, what they weigh and what they cost."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import Session, col, select

from accounting.valuing import value_unknown
from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.errors import BadRequest, NameTaken, NotFound
from broker.models import Site
from broker.names import named
from broker.rates import check_tariff, check_weight
from broker.schemas import (
    GpuClassIn,
    GpuClassOut,
    Page,
    TariffEntered,
    TariffIn,
    TariffOut,
    ValuedOut,
)
from quotas.amounts import day_start
from quotas.charging import CPU_CLASS
from quotas.models import GpuClass, Tariff
from quotas.programmes import set_weight, weights
from quotas.rates import set_tariff, tariffs, weight_history
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["awarding"])
READERS = ("manager", "operator", "auditor")


@router.post("/gpu-classes", status_code=201, response_model=GpuClassOut, openapi_extra=allow("manager"))
def create_gpu_class(body: GpuClassIn, at: At) -> Response:
    """Give a GPU class a weight from a day on."""

    def act(session: Session) -> GpuClassOut:
        valid_from = day_start(body.valid_from)
        if session.get(GpuClass, (body.name, valid_from)) is not None:
            raise NameTaken(f"GPU class {body.name} has a weight from that day already", "choose another day")
        check_weight(session, body.name, body.weight_thousandths, valid_from)
        return GpuClassOut.model_validate(
            set_weight(session, body.name, body.weight_thousandths, valid_from), from_attributes=True
        )

    return at.once(body, act)


@router.get("/gpu-classes", openapi_extra=allow(*ANYBODY))
def list_gpu_classes(at: At) -> Page[GpuClassOut]:
    """List the GPU classes as they are weighted today."""
    with at.read() as session:
        dated = session.exec(select(GpuClass).where(GpuClass.valid_from <= utcnow()).order_by(col(GpuClass.valid_from)))
        newest = {gpu_class.name: gpu_class for gpu_class in dated}
        items = [GpuClassOut.model_validate(newest[name], from_attributes=True) for name in sorted(newest)]
        return Page(items=items)


@router.get("/gpu-classes/history", openapi_extra=allow(*ANYBODY))
def list_weights(at: At, name: Annotated[str, Query(max_length=40)]) -> Page[GpuClassOut]:
    """List all weights of a GPU class, past and to come, oldest first."""
    with at.read() as session:
        rows = weight_history(session, name)
        if not rows:
            raise NotFound(f"no GPU class {name}", "`idf-compute class list` shows those that there are")
        return Page(items=[GpuClassOut.model_validate(row, from_attributes=True) for row in rows])


@router.post("/tariffs", status_code=201, response_model=TariffEntered, openapi_extra=allow("manager"))
def create_tariff(body: TariffIn, at: At) -> Response:
    """Give a GPU class a tariff at a site from a day on; charges that had waited for one get their value."""

    def act(session: Session) -> TariffEntered:
        site = named(session, Site, body.site)
        valid_from, now = day_start(body.valid_from), utcnow()
        if body.gpu_class != CPU_CLASS and body.gpu_class not in weights(session.connection(), max(now, valid_from)):
            raise NotFound(f"no GPU class {body.gpu_class} has a weight then", "add the class first")
        if session.get(Tariff, (site.id, body.gpu_class, valid_from)) is not None:
            raise NameTaken(
                f"{body.gpu_class} has a tariff at site {body.site} from that day already", "choose another day"
            )
        check_tariff(session, site.id, body.gpu_class, valid_from, now)
        set_tariff(session, site.id, body.gpu_class, valid_from, body.micro_euros_per_gpu_hour)
        valued, unknown = value_unknown(session, now)
        return TariffEntered(
            **body.model_dump(exclude={"valid_from"}), valid_from=valid_from, valued=valued, unknown=unknown
        )

    return at.once(body, act)


@router.get("/tariffs", openapi_extra=allow(*READERS))
def list_tariffs(
    at: At,
    day: Annotated[
        date | None, Query(alias="at", description="In force on this day, Europe/Paris; today if left out")
    ] = None,
) -> Page[TariffOut]:
    """List the tariffs in force on a day, by site and GPU class."""
    if day is not None and not 1970 <= day.year <= 9000:
        raise BadRequest(f"the day {day} must lie between 1970 and 9000", "choose another day")
    with at.read() as session:
        in_force = tariffs(session.connection(), day_start(day) if day is not None else utcnow())
        names = dict(session.exec(select(Site.id, Site.name)).all())
        items = [
            TariffOut(
                site=names[tariff.site_id],
                gpu_class=tariff.gpu_class,
                micro_euros_per_gpu_hour=tariff.micro_euros_per_gpu_hour,
                valid_from=tariff.valid_from,
            )
            for tariff in in_force
        ]
        return Page(items=sorted(items, key=lambda item: (item.site, item.gpu_class)))


@router.post("/tariffs/complete", response_model=ValuedOut, openapi_extra=allow("manager", "operator"))
def complete_values(at: At) -> Response:
    """Give charges without a value theirs, where a tariff is known by now; a value that is known stays."""

    def act(session: Session) -> ValuedOut:
        valued, unknown = value_unknown(session, utcnow())
        return ValuedOut(valued=valued, unknown=unknown)

    return at.once(None, act, status=200)
