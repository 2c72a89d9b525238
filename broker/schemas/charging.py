"""Charging rules."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, model_validator

from broker.schemas.base import CPUS_MAX, GPUS_MAX, Day, Schema, Slug

MEMORY_MIB_MAX = 64 * 1024 * 1024
Partition = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9:._-]{0,63})?$")]
Cpus = Annotated[int, Field(ge=1, le=CPUS_MAX)]
MemoryMib = Annotated[int, Field(ge=1, le=MEMORY_MIB_MAX)]


class ChargingRuleIn(Schema):
    """What jobs of a site count from a day in Europe/Paris on; what is left out is not counted."""

    site: Slug
    partition: Partition = ""
    """Empty: every partition of the site that has no rule of its own."""
    valid_from: Day
    cpus_per_gpu: Cpus | None = None
    """A GPU's share: a job with more CPUs a GPU counts as if it had more GPUs."""
    memory_mib_per_gpu: MemoryMib | None = None
    whole_nodes: bool = False
    """Every job has its nodes to itself."""
    gpus_per_node: int | None = Field(default=None, ge=1, le=GPUS_MAX)
    cpus_per_node: Cpus | None = None
    """The shares of a node's GPUs when left out."""
    memory_mib_per_node: MemoryMib | None = None
    cpu_weight_thousandths: int | None = Field(default=None, ge=1, le=1_000_000)
    """What one CPU of a job without GPU counts; left out: such jobs are refused."""

    @model_validator(mode="after")
    def _knows_its_nodes(self) -> "ChargingRuleIn":
        if self.whole_nodes and self.gpus_per_node is None and self.cpus_per_node is None:
            raise ValueError("whole nodes are counted by what they hold: give gpus_per_node, or cpus_per_node")
        return self


class ChargingRuleOut(BaseModel):
    """A charging rule; it ends where the next one of its partition begins."""

    id: str
    site: str
    partition: str
    valid_from: datetime
    cpus_per_gpu: int | None
    memory_mib_per_gpu: int | None
    whole_nodes: bool
    gpus_per_node: int | None
    cpus_per_node: int | None
    memory_mib_per_node: int | None
    cpu_weight_thousandths: int | None
