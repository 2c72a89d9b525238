"""Contracts: capacity that the Region has at a site for a period."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, Index
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime

_PURCHASED = "order_number IS NOT NULL AND dossier IS NULL AND holder IS NULL AND holder_project IS NULL"
_ALLOCATED = (
    "dossier IS NOT NULL AND holder IS NOT NULL AND holder_project IS NOT NULL AND order_number IS NULL"
    " AND price_before_tax_micro_euros IS NULL AND price_with_tax_micro_euros IS NULL"
)


class Contract(SQLModel, table=True):
    """Capacity of one GPU class at one site; its balances are ledger accounts. Never changed, only used up."""

    __tablename__ = "contract"
    __table_args__ = (
        CheckConstraint("start_at < end_at", name="ends_after_start"),
        CheckConstraint("capacity_credits > 0 AND weight_thousandths > 0", name="capacity_positive"),
        CheckConstraint(
            f"(kind = 'purchased' AND {_PURCHASED}) OR (kind = 'allocated' AND {_ALLOCATED})", name="kind_whole"
        ),
        CheckConstraint(
            "price_with_tax_micro_euros >= price_before_tax_micro_euros AND price_before_tax_micro_euros >= 0",
            name="tax_not_negative",
        ),
        Index("ix_contract_site_id_gpu_class", "site_id", "gpu_class"),
    )

    id: str = Field(primary_key=True, max_length=32)
    site_id: str = Field(max_length=32)
    """Of the broker: an opaque id here, no foreign key."""
    gpu_class: str = Field(max_length=40)
    kind: str = Field(max_length=16)
    start_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    end_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    capacity_credits: int = Field(sa_column=Column(BIG, nullable=False))
    """GPU-seconds of the class × the weight at signing."""
    weight_thousandths: int
    """At signing; what the contract's side of every hold and charge is counted with."""
    order_number: str | None = Field(default=None, max_length=100)
    price_before_tax_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    price_with_tax_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    dossier: str | None = Field(default=None, max_length=100)
    holder: str | None = Field(default=None, max_length=200)
    holder_project: str | None = Field(default=None, max_length=100)
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
