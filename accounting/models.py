"""The usage record: what one attempt used, as the source said it. Written once, never changed."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, Index
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime


class UsageRecord(SQLModel, table=True):
    """The immutable observation of one attempt that a charge is computed from."""

    __tablename__ = "usage_record"
    __table_args__ = (
        CheckConstraint("gpus >= 0 AND elapsed_s >= 0 AND charge_credits >= 0", name="not_negative"),
        CheckConstraint("overrun_credits >= 0 AND overrun_credits <= charge_credits", name="overrun_within_charge"),
        Index("ix_usage_record_ended_at", "ended_at"),
    )

    id: str = Field(primary_key=True, max_length=64)
    """`job id/digest of the source key`; its transfers are `settle/<id>` and `overrun/<id>`."""
    site_id: str = Field(max_length=32)
    source_key: str = Field(max_length=200)
    job_id: str = Field(max_length=32, index=True)
    award_id: str = Field(max_length=32)
    project_id: str = Field(max_length=32)
    programme_id: str = Field(max_length=32)
    state: str = Field(max_length=16)
    native_state: str = Field(max_length=64)
    gpu_class: str = Field(max_length=40)
    gpus: int
    elapsed_s: int = Field(sa_column=Column(BIG, nullable=False))
    started_at: datetime | None = Field(sa_column=Column(UtcTime, nullable=True))
    ended_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    weight_thousandths: int
    charge_credits: int = Field(sa_column=Column(BIG, nullable=False))
    overrun_credits: int = Field(sa_column=Column(BIG, nullable=False))
    contract_id: str | None = Field(default=None, max_length=32)
    contract_charge_credits: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """At the contract's weight; None where the hold had no contract."""
    recorded_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
