"""GPU classes and what they weigh."""

from fastapi import APIRouter, Response
from sqlmodel import Session, col, select

from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.errors import NameTaken
from broker.schemas import (
    GpuClassIn,
    GpuClassOut,
    Page,
)
from quotas.amounts import day_start
from quotas.models import GpuClass
from quotas.programmes import set_weight
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
