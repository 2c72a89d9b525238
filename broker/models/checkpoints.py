"""Signed heads of the chain, and how far each place outside has them."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Column
from sqlmodel import Field, SQLModel

from broker.models.columns import moment
from storage.tables import BIG

PLACE_MAX = 300


class Checkpoint(SQLModel, table=True):
    """The chain's head as it was at a moment, signed by the broker's Ed25519 key. Never changed."""

    __tablename__ = "checkpoint"
    __table_args__ = (CheckConstraint("sequence > 0", name="of_a_transfer"),)

    sequence: int = Field(sa_column=Column(BIG, primary_key=True, autoincrement=False))
    hash: str = Field(max_length=64)
    at: datetime = moment()
    key_id: str = Field(max_length=16)
    """The first 16 hexadecimal digits of the SHA-256 of the public key's 32 bytes."""
    signature: str = Field(max_length=128)
    """Ed25519, hexadecimal."""


class CheckpointPlace(SQLModel, table=True):
    """A place of the settings, and the last checkpoint that it took."""

    __tablename__ = "checkpoint_place"

    place: str = Field(primary_key=True, max_length=PLACE_MAX)
    """As the settings word it, which never bears a secret."""
    sequence: int = Field(sa_column=Column(BIG, nullable=False))
    """Of the last checkpoint it took, 0 before the first."""
    delivered_at: datetime | None = moment(nullable=True)
    failed_at: datetime | None = moment(nullable=True)
    """When it last failed, if nothing was delivered since."""
    failure: str | None = Field(default=None, max_length=300)
