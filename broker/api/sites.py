"""Sites: enrolment and audits by operators, the accounts of their pools, and what everybody may know of them."""

from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, func, select

from broker.accounts import lock_site
from broker.addresses import check_address
from broker.api.edge import ANYBODY, At, GuardedRoute, allow, answered
from broker.api.pages import Cursor, Limit, after, page
from broker.audits import look
from broker.models import Project, ProjectAccount, Site
from broker.names import check_free, named
from broker.schemas import AccountOut, AuditOut, FindingOut, Page, SiteIn, SiteOut, Slug
from broker.site_changes import check_change
from storage.tables import new_id, utcnow

router = APIRouter(route_class=GuardedRoute, tags=["sites"])

SHOWN = set(SiteIn.model_fields) & set(SiteOut.model_fields)
"""What everybody may know of a site's settings: no host, no login, no file."""


@router.post("/sites", status_code=201, response_model=AuditOut, openapi_extra=allow("operator"))
def enrol_site(body: SiteIn, at: At) -> Response:
    """Enrol a site: it is audited first, which takes up to some minutes, and takes no job while a problem stands."""
    _check_hosts(body, at)
    with at.read() as session:
        if (kept := answered(session, at.question(body))) is not None:
            return kept
        check_free(session, Site, body.name)
    site_id = new_id("sit")
    seen = look(at.services, site_id, body)

    def act(session: Session) -> AuditOut:
        check_free(session, Site, body.name)
        site = Site(id=site_id, name=body.name, settings=body.model_dump(), created_at=utcnow(), **seen)
        session.add(site)
        session.flush()
        return _audit_out(session, site)

    answer = at.once(body, act)
    at.services.bell.ring()
    return answer


@router.get("/sites", openapi_extra=allow(*ANYBODY))
def list_sites(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[SiteOut]:
    """List sites by name."""
    with at.read() as session:
        rows = session.scalars(after(select(Site), col(Site.name), cursor, limit)).all()
        return page([SiteOut(**_shown(session, row)) for row in rows], limit, "name")


@router.post("/sites/{name}/check", response_model=AuditOut, openapi_extra=allow("operator"))
def check_site(name: Slug, at: At) -> Response:
    """Audit a site again; what is found replaces what was found before."""
    with at.read() as session:
        site = named(session, Site, name)
        site_id, settings = site.id, SiteIn.model_validate(site.settings)
    seen = look(at.services, site_id, settings)

    def act(session: Session) -> AuditOut:
        again = session.get_one(Site, site_id)
        again.sqlmodel_update(seen)
        session.add(again)
        session.flush()
        return _audit_out(session, again)

    return at.once(None, act, status=200)


@router.post("/sites/{name}/settings", response_model=AuditOut, openapi_extra=allow("operator"))
def change_site(name: Slug, body: SiteIn, at: At) -> Response:
    """Change what is known of a site, all of it; it is audited as at its enrolment."""
    _check_hosts(body, at)
    with at.read() as session:
        if (kept := answered(session, at.question(body))) is not None:
            return kept
        site = named(session, Site, name)
        site_id = site.id
        check_change(session, site_id, SiteIn.model_validate(site.settings), body)
    seen = look(at.services, site_id, body)

    def act(session: Session) -> AuditOut:
        check_change(session, site_id, lock_site(session, site_id), body)
        changed = session.get_one(Site, site_id)
        changed.sqlmodel_update({**seen, "settings": body.model_dump()})
        session.add(changed)
        session.flush()
        return _audit_out(session, changed)

    answer = at.once(body, act, status=200)
    at.services.bell.ring()
    return answer


@router.get("/sites/{name}/audit", openapi_extra=allow("operator", "auditor"))
def last_audit(name: Slug, at: At) -> AuditOut:
    """Show what the last audit of a site found, and when; the site is not asked."""
    with at.read() as session:
        return _audit_out(session, named(session, Site, name))


@router.get("/sites/{name}/accounts", openapi_extra=allow("operator", "auditor"))
def list_accounts(name: Slug, at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[AccountOut]:
    """List the accounts of a site's pool that projects have, by name; all others are free."""
    with at.read() as session:
        site = named(session, Site, name)
        wanted: Any = (
            select_columns(ProjectAccount, col(Project.name))
            .join(Project, col(Project.id) == col(ProjectAccount.project_id))
            .where(col(ProjectAccount.site_id) == site.id)
        )
        rows = session.execute(after(wanted, col(ProjectAccount.account), cursor, limit)).all()
        return page([_account_out(row, project) for row, project in rows], limit, "account")


def _check_hosts(body: SiteIn, at: At) -> None:
    for host in filter(None, (body.host, body.rest_host)):
        check_address(host, allow_loopback=at.services.settings.allow_loopback_sites)


def _account_out(row: ProjectAccount, project: str) -> AccountOut:
    state = "leaving" if row.left_at is not None else "open" if row.opened_at is not None else "taken"
    return AccountOut(project=project, state=state, **row.model_dump(include=set(AccountOut.model_fields)))


def _audit_out(session: Session, site: Site) -> AuditOut:
    found = [FindingOut.model_validate(finding) for finding in site.findings]
    return AuditOut(**_shown(session, site), findings=found, proven_at=site.proven_at)


def _shown(session: Session, site: Site) -> dict[str, Any]:
    settings = SiteIn.model_validate(site.settings)
    taken = session.exec(select(func.count()).where(col(ProjectAccount.site_id) == site.id)).one()
    return {
        "id": site.id,
        "scheduler": site.scheduler,
        "problems": site.problems,
        "checked_at": site.checked_at,
        "free_accounts": len(settings.accounts) - taken if settings.accounts else None,
        **settings.model_dump(include=SHOWN),
    }
