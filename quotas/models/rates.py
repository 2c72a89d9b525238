"""What a GPU-second weighs, and what a GPU-hour costs in euros."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime


class GpuClass(SQLModel, table=True):
    """The weight of a GPU class from a moment on, in thousandths of a V100."""

    __tablename__ = "gpu_class"
    __table_args__ = (CheckConstraint("weight_thousandths > 0", name="weight_positive"),)

    name: str = Field(primary_key=True, max_length=40)
    valid_from: datetime = Field(sa_column=Column(UtcTime, primary_key=True))
    weight_thousandths: int


class Tariff(SQLModel, table=True):
    """What one hour of one GPU of a class costs at a site from a moment on, in micro-euros; not normalised."""

    __tablename__ = "tariff"
    __table_args__ = (CheckConstraint("micro_euros_per_gpu_hour >= 0", name="not_negative"),)

    site_id: str = Field(primary_key=True, max_length=32)
    """Of the broker, which this folder does not import: an opaque id, no foreign key."""
    gpu_class: str = Field(primary_key=True, max_length=40)
    valid_from: datetime = Field(sa_column=Column(UtcTime, primary_key=True))
    micro_euros_per_gpu_hour: int = Field(sa_column=Column(BIG, nullable=False))
