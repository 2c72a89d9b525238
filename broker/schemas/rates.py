"""GPU classes and what they weigh."""

from datetime import datetime

from pydantic import BaseModel, Field, field_validator

from broker.schemas.base import (
    Day,
    GpuClassName,
    Schema,
)
from quotas.charging import CPU_CLASS


class GpuClassIn(Schema):
    """A kind of GPU with its weight against the V100 (1000), valid from a day in Europe/Paris."""

    name: GpuClassName
    weight_thousandths: int = Field(ge=1, le=1_000_000)
    valid_from: Day

    @field_validator("name")
    @classmethod
    def _is_not_reserved(cls, value: str) -> str:
        if value == CPU_CLASS:
            raise ValueError(f"the name {CPU_CLASS} is reserved for jobs without GPU: choose another name")
        return value


class GpuClassOut(BaseModel):
    """A GPU class as it is weighted today."""

    name: str
    weight_thousandths: int
    valid_from: datetime
