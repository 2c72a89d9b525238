"""What a site itself said of a job, beside the moves that the broker keeps: asked when it is asked for."""

from fastapi import APIRouter

from adapters.errors import SiteError
from adapters.port import Teller
from broker.accounts import owns
from broker.api.edge import At, GuardedRoute, allow
from broker.api.jobs import job_of
from broker.known import job_name
from broker.memberships import LOG_READERS
from broker.models import Site
from broker.schemas import SiteEventOut, SiteEventsOut, SiteIn

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])


@router.get("/jobs/{job_id}/site-events", openapi_extra=allow("engineer"))
def list_site_events(job_id: str, at: At) -> SiteEventsOut:
    """Say what the site's own parts said of a job lately, oldest first, 100 at most; or why that is unknown."""
    with at.read() as session:
        row = job_of(session, at, job_id, LOG_READERS)
        settings = SiteIn.model_validate(session.get_one(Site, row["site_id"]).settings)
        there = row["site_job_id"] and owns(session, row["site_id"], settings, row["account"], row["project_id"])
    if not there:
        return SiteEventsOut(items=[], unknown="it was not sent, or its site has let go of it")
    scheduler = at.services.schedulers.at(row["site_id"], settings)
    if not isinstance(scheduler, Teller):
        return SiteEventsOut(items=[], unknown="a Slurm site tells no events")
    try:
        told = scheduler.site_events(row["account"], job_name(job_id))
    except SiteError as error:
        return SiteEventsOut(items=[], unknown=f"site {settings.name}: {error.reason}")
    return SiteEventsOut(items=[SiteEventOut.model_validate(each, from_attributes=True) for each in told], unknown=None)
