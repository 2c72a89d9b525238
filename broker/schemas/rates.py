"""GPU classes: what they weigh, and what they cost at a site."""

from datetime import datetime

from pydantic import BaseModel, Field

from broker.schemas.base import (
    Day,
    GpuClassName,
    Schema,
    Slug,
)


class GpuClassIn(Schema):
    """A kind of GPU with its weight against the V100 (1000), valid from a day in Europe/Paris."""

    name: GpuClassName
    weight_thousandths: int = Field(ge=1, le=1_000_000)
    valid_from: Day


class GpuClassOut(BaseModel):
    """A GPU class as it is weighted today."""

    name: str
    weight_thousandths: int
    valid_from: datetime


class TariffIn(Schema):
    """What one hour of one GPU of a class (not normalised) costs at a site, from a day in Europe/Paris on."""

    site: Slug
    gpu_class: GpuClassName
    micro_euros_per_gpu_hour: int = Field(ge=0, le=10**12)
    """Exact; nothing is rounded."""
    valid_from: Day


class TariffOut(BaseModel):
    """A tariff in force."""

    site: str
    gpu_class: str
    micro_euros_per_gpu_hour: int
    valid_from: datetime


class ValuedOut(BaseModel):
    """How many charges without a value got one, and how many are still without."""

    valued: int
    unknown: int


class TariffEntered(TariffOut, ValuedOut):
    """A new tariff, and what became of the charges that had waited for one."""
