"""The usage record: what one attempt used, as the source said it, written once; and what that is worth in euros."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime

_UNKNOWN = text("value_micro_euros IS NULL")


class UsageRecord(SQLModel, table=True):
    """The immutable observation of one attempt that a charge is computed from.

    What a site says later of the same attempt becomes a further record, a revision; the newest counts.
    """

    __tablename__ = "usage_record"
    __table_args__ = (
        CheckConstraint("gpus >= 0 AND elapsed_s >= 0 AND charge_credits >= 0", name="not_negative"),
        CheckConstraint("overrun_credits >= 0 AND overrun_credits <= charge_credits", name="overrun_within_charge"),
        CheckConstraint("revision > 0", name="revision_positive"),
        UniqueConstraint("attempt_id", "revision"),
        Index("ix_usage_record_ended_at", "ended_at"),
        Index("ix_usage_record_project_id_site_id", "project_id", "site_id"),
    )

    id: str = Field(primary_key=True, max_length=80)
    """The attempt's id; of a later revision, with `/<revision>` behind it."""
    attempt_id: str = Field(max_length=64)
    """`job id/digest of the source key`. Its transfers are `settle/<attempt id>` and `overrun/<attempt id>`, and
    those of what became known after settlement `adjust/<attempt id>/<revision>`."""
    revision: int
    site_id: str = Field(max_length=32)
    source_key: str = Field(max_length=200)
    job_id: str = Field(max_length=32, index=True)
    award_id: str = Field(max_length=32)
    project_id: str = Field(max_length=32)
    programme_id: str = Field(max_length=32)
    state: str = Field(max_length=16)
    native_state: str = Field(max_length=64)
    gpu_class: str = Field(max_length=40)
    """`cpu` for a job without GPU."""
    gpus: int
    cpus: int | None = None
    """Allocated over all nodes, as `memory_mib` and `nodes`; None where the source did not tell."""
    memory_mib: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    nodes: int | None = None
    exclusive: bool = False
    rate_credits_per_s: int = Field(sa_column=Column(BIG, nullable=False))
    """What the charging rule of the hold counts of it, each second; times `elapsed_s` it is the charge."""
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
    task: int | None = None
    """Which task of an array it was an attempt of."""


class ChargeValue(SQLModel, table=True):
    """What one usage record's charge is worth in euros and who pays it, at the tariff and shares of its start.

    Written with the charge. Figures are never changed; where the tariff was not known they are NULL with the
    reason, and are filled exactly once when it is entered.
    """

    __tablename__ = "charge_value"
    __table_args__ = (
        CheckConstraint("(value_micro_euros IS NULL) = (unknown_reason IS NOT NULL)", name="known_or_why_not"),
        CheckConstraint("(value_micro_euros IS NULL) = (valued_at IS NULL)", name="dated_when_valued"),
        CheckConstraint(
            "region_micro_euros + company_micro_euros + partner_micro_euros = value_micro_euros",
            name="parts_make_whole",
        ),
        CheckConstraint(
            "region_thousandths + company_thousandths + partner_thousandths = 1000", name="shares_make_whole"
        ),
        Index("ix_charge_value_unknown", "usage_id", sqlite_where=_UNKNOWN, postgresql_where=_UNKNOWN),
    )

    usage_id: str = Field(sa_column=Column(String(80), ForeignKey("usage_record.id"), primary_key=True))
    weight_thousandths: int
    region_thousandths: int | None = None
    """The programme's shares at the start; None where the attempt never started."""
    company_thousandths: int | None = None
    partner_thousandths: int | None = None
    tariff_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """Per hour of one GPU of the class, not normalised."""
    value_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    region_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    company_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    """The company's share: what is left for it to pay."""
    partner_micro_euros: int | None = Field(default=None, sa_column=Column(BIG, nullable=True))
    unknown_reason: str | None = Field(default=None, max_length=200)
    valued_at: datetime | None = Field(default=None, sa_column=Column(UtcTime, nullable=True))
