"""Sites: enrolment by operators, and what everybody may know of them."""

from typing import Any

from fastapi import APIRouter, Response
from sqlmodel import Session, col, func, select

from adapters.errors import SiteError
from broker.addresses import check_address
from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.bootstrap import Services
from broker.models import ProjectAccount, Site
from broker.names import check_free, named
from broker.schemas import Page, SiteIn, SiteOut, Slug
from storage.tables import new_id, utcnow

router = APIRouter(route_class=GuardedRoute, tags=["sites"])

SHOWN = set(SiteIn.model_fields) & set(SiteOut.model_fields)
"""What everybody may know of a site's settings: no host, no login, no file."""


@router.post("/sites", status_code=201, response_model=SiteOut, openapi_extra=allow("operator"))
def enrol_site(body: SiteIn, at: At) -> Response:
    """Enrol a site: it is looked at first, and takes no job while a problem stands."""
    for host in filter(None, (body.host, body.rest_host)):
        check_address(host, allow_loopback=at.services.settings.allow_loopback_sites)
    site_id = new_id("sit")
    seen = look(at.services, site_id, body)

    def act(session: Session) -> SiteOut:
        check_free(session, Site, body.name)
        site = Site(id=site_id, name=body.name, settings=body.model_dump(), created_at=utcnow(), **seen)
        session.add(site)
        session.flush()
        return _site_out(session, site)

    answer = at.once(body, act)
    at.services.bell.ring()
    return answer


@router.get("/sites", openapi_extra=allow(*ANYBODY))
def list_sites(at: At, limit: Limit = 50, cursor: Cursor = None) -> Page[SiteOut]:
    """List sites by name."""
    with at.read() as session:
        rows = session.scalars(after(select(Site), col(Site.name), cursor, limit)).all()
        return page([_site_out(session, row) for row in rows], limit, "name")


@router.post("/sites/{name}/check", response_model=SiteOut, openapi_extra=allow("operator"))
def check_site(name: Slug, at: At) -> Response:
    """Look at a site again."""
    with at.read() as session:
        site = named(session, Site, name)
        site_id, settings = site.id, SiteIn.model_validate(site.settings)
    seen = look(at.services, site_id, settings)

    def act(session: Session) -> SiteOut:
        again = session.get_one(Site, site_id)
        again.sqlmodel_update(seen)
        session.add(again)
        session.flush()
        return _site_out(session, again)

    return at.once(None, act, status=200)


def look(services: Services, site_id: str, settings: SiteIn) -> dict[str, Any]:
    """Ask a site whether it is fit for use; outside any transaction."""
    try:
        facts = services.schedulers.at(site_id, settings).check()
    except SiteError as error:
        return {"scheduler": None, "problems": [f"it did not answer: {error.reason}"], "checked_at": utcnow()}
    return {
        "scheduler": facts.scheduler[:100],
        "problems": list(facts.problems),
        "array_size_max": facts.array_size_max,
        "checked_at": utcnow(),
    }


def _site_out(session: Session, site: Site) -> SiteOut:
    settings = SiteIn.model_validate(site.settings)
    taken = session.exec(select(func.count()).where(col(ProjectAccount.site_id) == site.id)).one()
    return SiteOut(
        id=site.id,
        scheduler=site.scheduler,
        problems=site.problems,
        checked_at=site.checked_at,
        free_accounts=len(settings.accounts) - taken if settings.accounts else None,
        **settings.model_dump(include=SHOWN),
    )
