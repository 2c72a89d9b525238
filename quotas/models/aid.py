"""State aid: what each award is worth, and what companies declared. A mistake is answered by a further row."""

from datetime import date, datetime

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String
from sqlmodel import Field, SQLModel

from storage.tables import BIG, UtcTime


class AidLine(SQLModel, table=True):
    """One line of the register: what an award, or a change of it, is worth to its organisation in euros."""

    __tablename__ = "aid_line"
    __table_args__ = (
        CheckConstraint("kind IN ('grant', 'supplement', 'transfer', 'reduction')", name="kind_known"),
        CheckConstraint("regime IN ('de-minimis', 'exempted')", name="regime_known"),
        CheckConstraint("(regime = 'exempted') = (scheme IS NOT NULL)", name="scheme_of_exempted"),
        CheckConstraint(
            "(kind = 'reduction' AND credits < 0 AND value_micro_euros <= 0 AND reduces_id IS NOT NULL)"
            " OR (kind <> 'reduction' AND credits > 0 AND value_micro_euros >= 0 AND reduces_id IS NULL)",
            name="only_reductions_lower",
        ),
        CheckConstraint("micro_euros_per_hour >= 0", name="rate_not_negative"),
        CheckConstraint("public_thousandths >= 0 AND public_thousandths <= 1000", name="share_within_whole"),
        Index("ix_aid_line_organisation_id_granted_at", "organisation_id", "granted_at"),
    )

    id: str = Field(primary_key=True, max_length=32)
    award_id: str = Field(sa_column=Column(String(32), ForeignKey("award.id"), nullable=False, index=True))
    organisation_id: str = Field(max_length=32)
    """Of the broker, which this folder does not import: an opaque id, no foreign key."""
    kind: str = Field(max_length=16)
    reduces_id: str | None = Field(
        default=None, sa_column=Column(String(32), ForeignKey("aid_line.id"), nullable=True, index=True)
    )
    """The line that a reduction lowers; it then counts on the day of that line, not on its own."""
    regime: str = Field(max_length=16)
    scheme: str | None = Field(default=None, max_length=200)
    """The number of the exempted scheme."""
    credits: int = Field(sa_column=Column(BIG, nullable=False))
    micro_euros_per_hour: int = Field(sa_column=Column(BIG, nullable=False))
    """Of one normalised GPU-hour, frozen here."""
    public_thousandths: int
    """The share that the Region and partners pay; the company's own is no aid."""
    value_micro_euros: int = Field(sa_column=Column(BIG, nullable=False))
    act_reference: str = Field(max_length=200)
    act_on: date
    granted_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    """When the right was given: the moment that counts. A reduction bears that of the line it lowers."""
    entered_at: datetime = Field(sa_column=Column(UtcTime, nullable=False, index=True))


class AidDeclaration(SQLModel, table=True):
    """What an organisation declared on a day of the aids it had; the newest one stands whole."""

    __tablename__ = "aid_declaration"

    id: str = Field(primary_key=True, max_length=32)
    organisation_id: str = Field(max_length=32, index=True)
    declared_on: date
    document: str = Field(max_length=200)
    """Where the signed declaration is kept."""
    entered_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class AidDeclared(SQLModel, table=True):
    """One aid that a declaration names."""

    __tablename__ = "aid_declared"
    __table_args__ = (
        CheckConstraint("value_micro_euros > 0", name="value_positive"),
        CheckConstraint(
            "regime IN ('de-minimis', 'de-minimis-agriculture', 'de-minimis-fishery', 'de-minimis-sgei', 'exempted')",
            name="regime_known",
        ),
    )

    declaration_id: str = Field(sa_column=Column(String(32), ForeignKey("aid_declaration.id"), primary_key=True))
    number: int = Field(primary_key=True)
    """Its place in the declaration, from 1."""
    granted_on: date
    giver: str = Field(max_length=200)
    value_micro_euros: int = Field(sa_column=Column(BIG, nullable=False))
    """Gross, as a cash grant would be (Regulation (EU) 2023/2831, art. 3(5))."""
    act_reference: str = Field(max_length=200)
    regime: str = Field(max_length=32)
