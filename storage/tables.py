"""What every table shares: one metadata, one naming convention, exact column types, ids."""

import secrets
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, MetaData
from sqlalchemy.types import TypeDecorator
from sqlmodel import SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata: MetaData = SQLModel.metadata

BIG = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both engines; SQLite's own integer, so that a primary key of it is the row id."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


class UtcTime(TypeDecorator[datetime]):
    """A moment, stored as whole microseconds since 1970 in UTC: the same bytes on every engine.

    Raises:
        ValueError: a moment without a time zone is given; it could mean anything.
    """

    impl = BIG
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turn a moment into microseconds."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Turn microseconds into a moment."""
        return None if value is None else from_microseconds(value)


def microseconds(moment: datetime) -> int:
    """Return whole microseconds since 1970 in UTC, exactly."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_microseconds(value: int) -> datetime:
    """Return the moment that lies so many microseconds after 1970 in UTC."""
    seconds, rest = divmod(value, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def utcnow() -> datetime:
    """Return this moment in UTC."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """Return an opaque id, `prefix-` and 16 characters, that sorts by time to the millisecond.

    48 bits of time and 32 of chance: a clash needs two ids of one kind in the same millisecond, one
    time in four thousand million, and is then refused by the primary key.
    """
    number = (time.time_ns() // 1_000_000) << 32 | secrets.randbits(32)
    return f"{prefix}-" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(75, -1, -5))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
__all__ = ["BIG", "UtcTime", "from_microseconds", "metadata", "microseconds", "new_id", "utcnow"]
