"""What a GPU of a class weighs and costs, by date: a weight frozen at the hold, a tariff of the attempt's start."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Table, select
from sqlmodel import Session, col

from quotas.errors import RateRefused
from quotas.models import GpuClass, Tariff

_tariffs: Table = Tariff.__table__  # type: ignore[attr-defined]
_classes: Table = GpuClass.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class TariffInForce:
    """What a GPU-hour (not normalised) of a class costs at a site since a moment."""

    site_id: str
    gpu_class: str
    valid_from: datetime
    micro_euros_per_gpu_hour: int


def set_tariff(
    session: Session, site_id: str, gpu_class: str, valid_from: datetime, micro_euros_per_gpu_hour: int
) -> Tariff:
    """Give a site's GPU class a tariff from a moment on."""
    tariff = Tariff(
        site_id=site_id,
        gpu_class=gpu_class,
        valid_from=valid_from,
        micro_euros_per_gpu_hour=micro_euros_per_gpu_hour,
    )
    session.add(tariff)
    session.flush()
    return tariff


def tariff_at(connection: Connection, site_id: str, gpu_class: str, at: datetime) -> int | None:
    """Return the micro-euros of one GPU-hour at a moment, None where no tariff is known: unknown is not zero."""
    wanted = (
        select(_tariffs.c.micro_euros_per_gpu_hour)
        .where(_tariffs.c.site_id == site_id, _tariffs.c.gpu_class == gpu_class, _tariffs.c.valid_from <= at)
        .order_by(_tariffs.c.valid_from.desc())
        .limit(1)
    )
    return connection.execute(wanted).scalar_one_or_none()


def tariffs(connection: Connection, at: datetime) -> list[TariffInForce]:
    """Return the tariffs in force at a moment, by site and class."""
    wanted = select(*_tariffs.c).where(_tariffs.c.valid_from <= at).order_by(_tariffs.c.valid_from)
    newest = {(row.site_id, row.gpu_class): TariffInForce(*row) for row in connection.execute(wanted)}
    return [newest[key] for key in sorted(newest)]


def weight_history(session: Session, name: str) -> Sequence[GpuClass]:
    """Return all weights that a GPU class ever had or will have, oldest first."""
    wanted = select(GpuClass).where(col(GpuClass.name) == name).order_by(col(GpuClass.valid_from))
    return session.scalars(wanted).all()


def next_weight_at(connection: Connection, name: str, after: datetime) -> datetime | None:
    """Return when the weight that follows this moment begins, if one is known."""
    wanted = select(_classes.c.valid_from).where(_classes.c.name == name, _classes.c.valid_from > after)
    return connection.execute(wanted.order_by(_classes.c.valid_from).limit(1)).scalar_one_or_none()


def next_tariff_at(connection: Connection, site_id: str, gpu_class: str, after: datetime) -> datetime | None:
    """Return when the tariff that follows this moment begins, if one is known."""
    wanted = select(_tariffs.c.valid_from).where(
        _tariffs.c.site_id == site_id, _tariffs.c.gpu_class == gpu_class, _tariffs.c.valid_from > after
    )
    return connection.execute(wanted.order_by(_tariffs.c.valid_from).limit(1)).scalar_one_or_none()


def whole_class(name: str) -> str:
    """Return the class of the whole GPU that a slice is cut from: `h100-80` of `h100-80.1g.10gb`."""
    return name.partition(".")[0]


def check_slices_weigh_less(connection: Connection, name: str, weight_thousandths: int, valid_from: datetime) -> None:
    """Refuse a weight by which a slice would at any time weigh as much as its whole GPU, or more.

    Raises:
        RateRefused: says which slice, and below or above what weight it would pass.
    """
    whole = whole_class(name)
    family = _classes.c.name == whole
    slices = _classes.c.name.startswith(f"{whole}.", autoescape=True)
    rows = [(row.valid_from, row.name, row.weight_thousandths) for row in
            connection.execute(select(*_classes.c).where(family | slices))]  # fmt: skip
    in_force: dict[str, int] = {}
    for since, changed, weight in sorted([*rows, (valid_from, name, weight_thousandths)]):
        in_force[changed] = weight
        bound = in_force.get(whole)
        if bound is None or since < valid_from:
            continue
        for part in (other for other in in_force if other != whole and in_force[other] >= bound):
            remedy = f"give {name} a weight {'below ' + _weight(bound) if part == name else 'above ' + _weight(in_force[part])}"
            raise RateRefused(
                f"the slice {part} would weigh {_weight(in_force[part])} and the whole {whole} {_weight(bound)}", remedy
            )


def _weight(thousandths: int) -> str:
    return f"{thousandths / 1000:g}"
