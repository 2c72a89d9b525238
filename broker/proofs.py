"""The certifications that sites have, read from the database; and which held jobs may still be sent by them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Table, select
from sqlmodel import Session

from broker.certifications import DataClass, Needs, Proof, is_sensitive, proven_until
from broker.errors import PlacementRefused
from broker.models import Certification, Project
from broker.moves import change_jobs

_certifications: Table = Certification.__table__  # type: ignore[attr-defined]
_projects: Table = Project.__table__  # type: ignore[attr-defined]

LOOK_AGAIN = timedelta(minutes=1)


def proofs_by_site(connection: Connection) -> dict[str, list[Proof]]:
    """Return the certifications that nobody withdrew, by the id of their site."""
    proofs: dict[str, list[Proof]] = {}
    wanted = select(_certifications).where(_certifications.c.withdrawn_at.is_(None)).order_by(_certifications.c.id)
    for row in connection.execute(wanted):
        confirmed = row.confirmed_at is not None
        proof = Proof(row.service, row.scheme, row.version, row.scope, row.start_at, row.end_at, confirmed)
        proofs.setdefault(row.site_id, []).append(proof)
    return proofs


def still_proven(
    session: Session, site_id: str, site_name: str, rows: Sequence[Row[Any]], needs: Needs, now: datetime
) -> list[Row[Any]]:
    """Keep the jobs whose data may still go to the site; the others wait, and say for what.

    A certification may have been withdrawn since a job was placed by it.
    """
    ids = {row.project_id for row in rows}
    wanted = select(_projects.c.id, _projects.c.confidentiality, _projects.c.nature).where(_projects.c.id.in_(ids))
    classes = {row.id: DataClass(row.confidentiality, row.nature) for row in session.execute(wanted)} if ids else {}
    if not any(is_sensitive(each, needs) for each in classes.values()):
        return list(rows)
    proofs = proofs_by_site(session.connection()).get(site_id, [])
    kept: list[Row[Any]] = []
    for row in rows:
        until = now + timedelta(seconds=row.time_limit_s)
        try:
            proven_until(site_name, classes[row.project_id], proofs, needs, now, until)
        except PlacementRefused as refusal:
            reason = f"waits: {refusal.detail}"[:1000]
            change_jobs(session, [(row.id, {"reason": reason, "next_try_at": now + LOOK_AGAIN})])
        else:
            kept.append(row)
    return kept
