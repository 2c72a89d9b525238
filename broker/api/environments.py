"""Named environments: what sites offer to run a program in."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import Select, Table
from sqlalchemy import select as select_columns
from sqlmodel import Session, col

from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.pages import Cursor, Limit, after, page
from broker.errors import BadRequest, NotFound
from broker.models import NamedEnvironment, Site
from broker.names import named
from broker.schemas import NamedEnvironmentIn, NamedEnvironmentOut, NamedEnvironmentRef, Page, SiteIn, Slug
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["environments"])

_environments: Table = NamedEnvironment.__table__  # type: ignore[attr-defined]
_key = col(Site.name) + "/" + _environments.c.name


@router.get("/environments", openapi_extra=allow(*ANYBODY))
def list_environments(
    at: At, site: Annotated[Slug | None, Query()] = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[NamedEnvironmentOut]:
    """List the environments that sites offer, by site and name."""
    site_name: Any = col(Site.name)
    wanted: Select[Any] = select_columns(_environments, site_name.label("site")).join(
        Site, col(Site.id) == _environments.c.site_id
    )
    if site is not None:
        wanted = wanted.where(site_name == site)
    with at.read() as session:
        rows = session.execute(after(wanted, _key, cursor, limit)).mappings().all()
    return page([_out(row, row["site"]) for row in rows], limit, "id")


@router.post("/environments", status_code=201, response_model=NamedEnvironmentOut, openapi_extra=allow("operator"))
def set_environment(body: NamedEnvironmentIn, at: At) -> Response:
    """Offer an environment at a site, or say anew what it is; jobs keep what it was when they were submitted."""

    def act(session: Session) -> NamedEnvironmentOut:
        site = named(session, Site, body.site)
        if body.container is not None and not SiteIn.model_validate(site.settings).containers:
            raise BadRequest(
                f"site {site.name} offers no containers", "enrol it with containers = true, or give modules"
            )
        values = {**body.model_dump(include={"about", "modules", "container"}), "entered_at": utcnow()}
        environment = session.get(NamedEnvironment, (site.id, body.name))
        if environment is None:
            environment = NamedEnvironment(site_id=site.id, name=body.name, **values)
        environment.sqlmodel_update(values)
        session.add(environment)
        session.flush()
        return _out(environment.model_dump(), site.name)

    return at.once(body, act)


@router.post("/environments/remove", response_model=NamedEnvironmentOut, openapi_extra=allow("operator"))
def remove_environment(body: NamedEnvironmentRef, at: At) -> Response:
    """Offer an environment no longer; jobs that were submitted with it keep it."""

    def act(session: Session) -> NamedEnvironmentOut:
        site = named(session, Site, body.site)
        environment = session.get(NamedEnvironment, (site.id, body.name))
        if environment is None:
            raise NotFound(f"site {site.name} offers no environment {body.name}", "`idf-compute env list` shows them")
        shown = _out(environment.model_dump(), site.name)
        session.delete(environment)
        return shown

    return at.once(body, act, status=200)


def _out(row: Any, site: str) -> NamedEnvironmentOut:
    known = {name: row[name] for name in ("name", "about", "modules", "container", "entered_at")}
    return NamedEnvironmentOut(id=f"{site}/{row['name']}", site=site, **known)
