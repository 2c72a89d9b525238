"""The ledger's tables. Rules live in CHECK constraints too, since table models do not validate."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime

BELOW_ZERO_KINDS = ("treasury", "overrun")
"""The only accounts that may go below zero, by design (docs/rules.md)."""
DETAILS_MAX = 200


class Account(SQLModel, table=True):
    """A ledger account: credits in, minus credits out."""

    __tablename__ = "ledger_account"
    __table_args__ = (
        CheckConstraint("balance >= 0 OR kind IN ('treasury', 'overrun')", name="not_below_zero"),
        CheckConstraint("unit IN ('credit', 'byte', 'byte-hour')", name="unit_known"),
        UniqueConstraint("kind", "owner_id"),
    )

    id: str = Field(primary_key=True, max_length=64)
    kind: str = Field(max_length=32)
    owner_id: str = Field(max_length=32)
    unit: str = Field(max_length=16)
    balance: int = Field(sa_column=Column(BIG, nullable=False))


class Transfer(SQLModel, table=True):
    """One movement from the debited to the credited account. Never changed, never deleted."""

    __tablename__ = "ledger_transfer"
    __table_args__ = (
        CheckConstraint("amount > 0 OR (amount = 0 AND kind = 'restore')", name="positive"),
        CheckConstraint(f"length(details) BETWEEN 1 AND {DETAILS_MAX}", name="details_short"),
        CheckConstraint("debit_id <> credit_id", name="two_accounts"),
        Index("ix_ledger_transfer_reference_id", "reference_id"),
        *(
            Index(f"ix_ledger_transfer_charged_{side}", side, "at", postgresql_where=where, sqlite_where=where)
            for side in ("credit_id", "debit_id")
            for where in (text(f"substr({side}, 1, 13) = 'consumed:awd-'"),)
        ),  # what awards were charged day by day; holds, which must be quick, are not in it
    )

    sequence: int = Field(sa_column=Column(BIG, primary_key=True, autoincrement=False))
    id: str = Field(max_length=96, unique=True)
    kind: str = Field(max_length=16)
    debit_id: str = Field(max_length=64)
    """No foreign key: a posting locks the accounts that it moves (docs/decisions/0009)."""
    credit_id: str = Field(max_length=64)
    amount: int = Field(sa_column=Column(BIG, nullable=False))
    reference_id: str = Field(max_length=32)
    details: str | None = Field(default=None, max_length=DETAILS_MAX)
    """`key=value` pairs joined by `;`, part of the hash where there are any."""
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    hash: str = Field(max_length=64)


class ChainHead(SQLModel, table=True):
    """The newest link of the region's chain; its row is the lock of every movement."""

    __tablename__ = "ledger_head"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(primary_key=True)
    sequence: int = Field(sa_column=Column(BIG, nullable=False))
    hash: str = Field(max_length=64)


class Restore(SQLModel, table=True):
    """Why a backup was played back; its transfer, which moves nothing, says in the chain what was lost."""

    __tablename__ = "ledger_restore"

    transfer_id: str = Field(sa_column=Column(String(96), ForeignKey("ledger_transfer.id"), primary_key=True))
    reason: str = Field(max_length=500)
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class Hold(SQLModel, table=True):
    """Credits set aside for a job before anything is sent anywhere."""

    __tablename__ = "hold"
    __table_args__ = (
        CheckConstraint("remaining >= 0 AND remaining <= amount", name="remaining_within_amount"),
        CheckConstraint("weight_thousandths > 0", name="weight_positive"),
        CheckConstraint(
            "contract_remaining >= 0 AND contract_remaining <= contract_amount", name="contract_remaining_within_amount"
        ),
        CheckConstraint(
            "(contract_id IS NULL) = (contract_amount IS NULL) AND (contract_id IS NULL) = (contract_remaining IS NULL)"
            " AND (contract_id IS NULL) = (contract_weight_thousandths IS NULL)",
            name="contract_whole",
        ),
    )

    id: str = Field(primary_key=True, max_length=32)
    """The job's id."""
    award_id: str = Field(max_length=32, index=True)
    """No foreign key, here and for the contract: the posting locks the accounts of both (docs/decisions/0009)."""
    amount: int = Field(sa_column=Column(BIG, nullable=False))
    remaining: int = Field(sa_column=Column(BIG, nullable=False))
    weight_thousandths: int = Field(sa_column=Column(BIG, nullable=False))
    """Frozen here; the charge uses this one (docs/rules.md)."""
    contract_id: str | None = Field(default=None, max_length=32)
    """None for a hold made before there were contracts."""
    contract_amount: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    contract_remaining: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    contract_weight_thousandths: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """That of the contract's signing."""
