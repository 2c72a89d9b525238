"""Ceilings: how much an award, a project, a programme or a site may have in use at one time.

A budget runs out, a quota does not: what is in use is counted at the moment it would grow, under the lock
that makes it grow, so that two requests can never both take the last place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Table, bindparam, select, tuple_
from sqlmodel import Session

from quotas.errors import CeilingReached
from quotas.models import Ceiling
from storage.tables import utcnow

Scope = Literal["award", "project", "programme", "site"]
What = Literal["gpus_running", "jobs_queued", "bytes_stored"]
SCOPES: tuple[Scope, ...] = ("award", "project", "programme", "site")
WORDS: Mapping[What, str] = {
    "gpus_running": "GPUs at once",
    "jobs_queued": "jobs that wait",
    "bytes_stored": "bytes stored",
}

_ceilings: Table = Ceiling.__table__  # type: ignore[attr-defined]
_of_scopes = select(_ceilings.c.scope, _ceilings.c.scope_id, _ceilings.c.what, _ceilings.c.amount).where(
    tuple_(_ceilings.c.scope, _ceilings.c.scope_id).in_(bindparam("owners", expanding=True))
)


@dataclass(frozen=True, slots=True)
class Limit:
    """A ceiling in force."""

    scope: Scope
    scope_id: str
    what: What
    amount: int


def set_ceiling(session: Session, limit: Limit, set_by: str) -> Ceiling:
    """Set a ceiling, or change it; what is in use already is never taken away."""
    ceiling = session.merge(
        Ceiling(
            scope=limit.scope,
            scope_id=limit.scope_id,
            what=limit.what,
            amount=limit.amount,
            set_by=set_by,
            set_at=utcnow(),
        )
    )
    session.flush()
    return ceiling


def lift_ceiling(session: Session, scope: Scope, scope_id: str, what: What) -> bool:
    """Take a ceiling away; return whether there was one."""
    ceiling = session.get(Ceiling, (scope, scope_id, what))
    if ceiling is not None:
        session.delete(ceiling)
    return ceiling is not None


def limits_of(connection: Connection, owners: Sequence[tuple[Scope, str]], *, lock: bool = False) -> list[Limit]:
    """Return the ceilings of some scopes; with `lock`, nobody else counts under them until the commit."""
    wanted = _of_scopes.order_by(_ceilings.c.scope, _ceilings.c.scope_id, _ceilings.c.what)
    rows = connection.execute(wanted.with_for_update() if lock else wanted, {"owners": list(owners)})
    return [Limit(*row) for row in rows]


def reached(limit: Limit, owner_name: str, in_use: int, wanted: int) -> CeilingReached:
    """Say which ceiling refuses, and the smallest change that would pass."""
    room = max(0, limit.amount - in_use)
    what = WORDS[limit.what]
    if limit.what == "jobs_queued":
        remedy = "wait until a job has started"
    elif room:
        remedy = f"--gpus {room}" if limit.what == "gpus_running" else f"at most {room}"
    else:
        remedy = "ask your programme manager for a higher ceiling"
    return CeilingReached(
        f"{limit.scope} {owner_name} may have {limit.amount} {what}: {in_use} are in use, {wanted} more were asked for",
        remedy,
    )
