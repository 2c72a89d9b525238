"""What a site's partition counts."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, UniqueConstraint
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime

_FIGURES = (
    "cpus_per_gpu",
    "memory_mib_per_gpu",
    "gpus_per_node",
    "cpus_per_node",
    "memory_mib_per_node",
    "cpu_weight_thousandths",
)


class ChargingRule(SQLModel, table=True):
    """What jobs of one partition of a site count from a moment on. Never changed: a later rule takes its place."""

    __tablename__ = "charging_rule"
    __table_args__ = (
        UniqueConstraint("site_id", "partition", "valid_from"),
        CheckConstraint(" AND ".join(f"({name} IS NULL OR {name} > 0)" for name in _FIGURES), name="figures_positive"),
        CheckConstraint(
            "NOT whole_nodes OR gpus_per_node IS NOT NULL OR cpus_per_node IS NOT NULL", name="whole_node_known"
        ),
    )

    id: str = Field(primary_key=True, max_length=32)
    site_id: str = Field(max_length=32)
    """Of the broker, which this folder does not import: an opaque id, no foreign key."""
    partition: str = Field(max_length=64)
    """Empty: every partition of the site that has no rule of its own."""
    valid_from: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    cpus_per_gpu: int | None = None
    memory_mib_per_gpu: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    whole_nodes: bool = False
    gpus_per_node: int | None = None
    cpus_per_node: int | None = None
    memory_mib_per_node: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    cpu_weight_thousandths: int | None = None
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
