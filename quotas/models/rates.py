"""What a GPU-second weighs."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column
from sqlmodel import Field, SQLModel

from storage.tables import UtcTime


class GpuClass(SQLModel, table=True):
    """The weight of a GPU class from a moment on, in thousandths of a V100."""

    __tablename__ = "gpu_class"
    __table_args__ = (CheckConstraint("weight_thousandths > 0", name="weight_positive"),)

    name: str = Field(primary_key=True, max_length=40)
    valid_from: datetime = Field(sa_column=Column(UtcTime, primary_key=True))
    weight_thousandths: int
