"""Audits of sites: at enrolment and whenever an operator asks; what was found last is kept with its time.

A site takes no job while a problem stands. Whether project accounts are isolated is proven with two accounts that no
project has; where all are taken, the last proof stands until a crossing succeeds.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlmodel import Session, col

from adapters.errors import SiteError
from adapters.upkeep import Audit, Expected, Finding, Severity
from broker.accounts import accounts
from broker.bootstrap import Services
from broker.models import Site
from broker.schemas import SiteIn
from storage.tables import utcnow

HIDDEN = "isolation-"
"""Which way into other projects stands open is for operators to know: everybody else reads only that one does."""


def look(services: Services, site_id: str, settings: SiteIn) -> dict[str, Any]:
    """Audit a site, outside any transaction; return what the site's row is to say now."""
    with services.database.read() as session:
        expected, proven_at = _expected(session, site_id, settings)
    try:
        with services.upkeeps.apart(settings) as upkeep:
            audit = upkeep.audit(expected)
    except SiteError as error:
        sentence = f"it did not answer: {error.reason}"
        away = Finding("site-silent", Severity.PROBLEM, sentence, "see to it, then ask again")
        return _row(None, (away,), proven_at, array_size_max=None)
    if audit.proven is not None:
        proven_at = utcnow() if audit.proven else None
    found = (*_judged(audit, settings, proven_at), *_by_transport(services, settings, audit))
    return _row(audit.scheduler[:100], found, proven_at, audit.array_size_max)


def _by_transport(services: Services, settings: SiteIn, audit: Audit) -> Iterator[Finding]:
    """Yield what is wrong with the way that jobs are sent by, where it is another one than the audit's."""
    if settings.transport == "ssh":
        return
    remedy = "see adapters/slurm/README.md for what it needs"
    try:
        with services.schedulers.apart(settings) as scheduler:
            problems = scheduler.check().problems
    except SiteError as error:
        problems = (f"the site does not answer by {settings.transport}: {error.reason}",)
    known = {f"{finding.sentence}: {finding.remedy}" for finding in audit.findings}
    for sentence in problems:
        if sentence not in known:
            yield Finding("transport-unusable", Severity.PROBLEM, sentence, remedy)


def _row(
    scheduler: str | None, findings: Sequence[Finding], proven_at: datetime | None, array_size_max: int | None
) -> dict[str, Any]:
    problems = [finding for finding in findings if finding.severity is Severity.PROBLEM]
    public = dict.fromkeys(_public(finding) for finding in problems)
    return {
        "scheduler": scheduler,
        "problems": list(public),
        "findings": [_kept(finding) for finding in findings],
        "array_size_max": array_size_max,
        "checked_at": utcnow(),
        "proven_at": proven_at,
    }


def _expected(session: Session, site_id: str, settings: SiteIn) -> tuple[Expected, datetime | None]:
    """Return what the audit compares with, and when the isolation was last proven."""
    there = accounts.c.site_id.in_(_same_machine(session, settings))
    taken = set(session.scalars(select(accounts.c.account).where(there)))
    expected = Expected(
        accounts=settings.isolation == "accounts",
        pool=settings.accounts,
        free=[account for account in settings.accounts if account not in taken],
        gpu_types=sorted(set(settings.gpu_types.values())),
        partition=settings.partition,
        time_limit_s_max=settings.time_limit_s_max,
    )
    return expected, session.scalars(select(col(Site.proven_at)).where(col(Site.id) == site_id)).first()


def _same_machine(session: Session, settings: SiteIn) -> list[str]:
    """Return the sites behind the same login: what a project has there under another name is no less its own."""
    if settings.kind == "k8s":
        return []  # its accounts are made of its projects' names: there is no pool of them to compare
    sites = session.execute(select(col(Site.id), col(Site.settings))).all()
    there = (settings.host, settings.port, settings.login)
    return [id_ for id_, known in sites if (known["host"], known["port"], known["login"]) == there]


def _judged(audit: Audit, settings: SiteIn, proven_at: datetime | None) -> tuple[Finding, ...]:
    """Return the findings: what could not be proven today is advice where it was proven before."""
    found = list(audit.findings)
    if audit.cluster != settings.cluster:
        sentence = f"the site calls its cluster {audit.cluster[:64]}, the enrolment {settings.cluster}"
        found.append(Finding("cluster-other", Severity.PROBLEM, sentence, "correct cluster in the site's file"))
    if audit.proven is None and proven_at is not None:
        found = [
            Finding(one.code, Severity.ADVICE, f"{one.sentence}; last proven on {proven_at:%Y-%m-%d}", one.remedy)
            if one.code == "isolation-not-proven"
            else one
            for one in found
        ]
    return tuple(found)


def _public(finding: Finding) -> str:
    if finding.code.startswith(HIDDEN):
        return "its project accounts are not proven to be isolated from each other"
    return finding.sentence


def _kept(finding: Finding) -> dict[str, str]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "sentence": finding.sentence[:1000],
        "remedy": finding.remedy[:1000],
    }
