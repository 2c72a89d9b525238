"""What may change of an enrolled site: nothing that a job there, or an account that a project has, still stands on."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlmodel import Session

from broker.accounts import accounts
from broker.errors import BadRequest
from broker.lifecycle import JobState
from broker.moves import jobs
from broker.schemas import SiteIn

WAY = ("host", "port", "login", "isolation", "transport", "rest_url", "pyslurm_command", "kubernetes")
"""How a site is reached: what was being sent the old way is looked for the old way."""


def check_change(session: Session, site_id: str, old: SiteIn, new: SiteIn) -> None:
    """Refuse a change that would leave jobs or accounts behind. The caller holds the site's lock for it to stay true.

    Raises:
        BadRequest: says what stands on the old settings.
    """
    if new.name != old.name:
        raise BadRequest(f"the file describes site {new.name}, not {old.name}", f'name = "{old.name}" in the file')
    if new.kind != old.kind:
        raise BadRequest(f"site {old.name} is of kind {old.kind}, and stays so", "enrol the other as a site of its own")
    if new.cluster != old.cluster and _has_job(session, jobs.c.site_id == site_id):
        detail = f"site {old.name} has had jobs as cluster {old.cluster}, which is part of the name of each attempt"
        raise BadRequest(detail, "enrol the other cluster as a site of its own")
    _check_accounts(session, site_id, old, new)
    there = (jobs.c.site_id == site_id, jobs.c.settled_at.is_(None))
    if _changes(old, new, WAY) and _has_job(session, *there, jobs.c.state == JobState.DISPATCHING.value):
        detail = f"jobs are being sent to site {old.name}, and may have to be looked for where it is now"
        raise BadRequest(detail, "try again in a minute; after a fault in up to six")
    unsettled = select(jobs.c.gpu_class).where(*there, jobs.c.gpus > 0).distinct()
    if missing := set(session.scalars(unsettled)) - set(new.gpu_types):
        detail = f"jobs at site {old.name} hold {', '.join(sorted(missing))}, which [gpu_types] does not name any more"
        raise BadRequest(detail, "keep it there until they have ended")


def _check_accounts(session: Session, site_id: str, old: SiteIn, new: SiteIn) -> None:
    theirs = set(session.scalars(select(accounts.c.account).where(accounts.c.site_id == site_id)))
    busy = _has_job(session, jobs.c.site_id == site_id, jobs.c.settled_at.is_(None))
    if new.isolation != old.isolation and (theirs or busy):
        detail = f"the isolation of site {old.name} cannot change while it has jobs or projects have accounts there"
        raise BadRequest(detail, "enrol it under another name meanwhile")
    if new.kind == "slurm" and new.isolation == "accounts" and (missing := theirs - set(new.accounts)):
        detail = f"projects have {', '.join(sorted(missing))} at site {old.name}, which the file does not name any more"
        raise BadRequest(detail, f"keep it in `accounts`; `idf-compute site accounts {old.name}` shows whose it is")
    if new.isolation == "shared" and _changes(old, new, ("accounts",)) and busy:
        detail = f"the account of site {old.name} cannot change while jobs are there"
        raise BadRequest(detail, "wait until they have ended")


def _changes(old: SiteIn, new: SiteIn, words: Sequence[str]) -> bool:
    return any(getattr(new, word) != getattr(old, word) for word in words)


def _has_job(session: Session, *conditions: ColumnElement[bool]) -> bool:
    return session.execute(select(jobs.c.id).where(*conditions).limit(1)).first() is not None
